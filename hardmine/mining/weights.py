"""From hits and need to one sampling weight an image, and what the weights will do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import Hits

if TYPE_CHECKING:
    import scipy.sparse

_HALVINGS = 30
QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class WeightRules:
    """How far the weights of a training loop may lie apart, and what draws them apart.

    Attributes:
        floor: Factor of an image that nothing asks for.
        cap: Largest factor: ``cap / floor`` is how much more often what is asked for most is drawn
            than what is not, all else alike.
        budget: Largest share of an epoch's draws that mining may move, before ``fade``; None for no
            limit.
        fade: Draws by which an image is ahead of the mean one when it is wanted 1/e as much for
            that: the more often it has been seen, the less there is to learn from seeing it once
            more. None for never.
        balance: How far the draws are evened out whatever is asked, in [0, 1]: 0 not at all; 1 as
            if a class were chosen, each as likely, then one of its objects, so that images of many
            objects gain too, measured contexts came as often as in validation, and classes that are
            taken for others as often as those; images that probably lack labels count the less.
    """

    floor: float = 1.0
    cap: float = 3.0
    budget: float | None = 0.5
    fade: float | None = 5.0
    balance: float = 1.0

    def __post_init__(self) -> None:
        _check_limits(self.floor, self.cap, self.budget)
        if self.fade is not None and not self.fade > 0:
            raise InputError(f"fade is a number of draws above 0, or None, got {self.fade}")
        if not 0 <= self.balance <= 1:
            raise InputError(f"balance must lie in [0, 1], got {self.balance}")


def image_weights(
    hits: Hits,
    need: npt.ArrayLike,
    *,
    num_images: int,
    trust: npt.ArrayLike | None = None,
    strengths: npt.ArrayLike | None = None,
    floor: float = 1.0,
    cap: float = 10.0,
    budget: float | None = None,
) -> npt.NDArray[np.float64]:
    """Give every image a sampling weight, larger where weak classes were found.

    A query of need and trust 1 that an image fully answers multiplies its weight by cap / floor,
    half an answer by the square root of that. Weights are relative. An image that no query reached
    keeps the floor, so raising some lowers the share of the rest but never to zero.

    Args:
        hits: Images found for each of C queries.
        need: (C,) how weak the class behind each query is, in [0, 1]; 0 switches it off.
        num_images: N.
        trust: (C,) how far each query's hits are right, in [0, 1]; 1 if None.
        strengths: (C, K) how far each hit answers its query, in [0, 1]; the scores cut to that
            range if None. Not read where there is no hit.
        floor: Weight of an image that no query reached, above 0.
        cap: Weight of an image that fully answers a query of need and trust 1; equal to the floor
            turns mining off.
        budget: The largest share of draws, in [0, 1], that may go to other images than uniform
            drawing would take: the sum of ``max(0, w_i / sum(w) - 1 / N)``. Boosts are scaled
            down together to meet it. None for no limit.

    Returns:
        (N,) weights in [floor, cap].

    >>> hits = Hits(np.array([[2, 0]]), np.float32([[1.0, 0.5]]), np.zeros((1, 2, 4), np.float32))
    >>> image_weights(hits, [1.0], num_images=4)
    array([ 3.16227766,  1.        , 10.        ,  1.        ])
    """
    queries = len(hits.image_rows)
    factor = _share("need", need, (queries,))
    if trust is not None:
        factor = factor * _share("trust", trust, (queries,))
    found = hits.found
    answers = hits.scores.clip(0, 1) if strengths is None else strengths
    boosts = (factor[:, None] * _share("strengths", answers, found.shape, where=found))[found]
    rows = hits.image_rows[found]
    if len(rows) and rows.max() >= num_images:
        raise InputError(
            f"a hit names image row {rows.max()} of {num_images} images; "
            "was the index built on another split?"
        )
    boost = np.zeros(num_images)
    # Max, not sum: an image that answers five queries is not five times as useful.
    np.maximum.at(boost, rows, boosts)
    return weights_from_boost(boost, floor=floor, cap=cap, budget=budget)


def weights_from_boost(
    boost: npt.NDArray[np.float64],
    *,
    floor: float = 1.0,
    cap: float = 10.0,
    budget: float | None,
    base: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Weights of images whose boost is known: base · floor · (cap / floor)^boost, within a budget.

    Factors rather than summands: where most images are wanted a little, those that are wanted
    most must still stand out.

    Args:
        boost: (N,) in [0, 1].
        floor: As in ``image_weights``, like the others.
        cap: Largest weight, but for the base.
        budget: Largest share of the draws that may move; None for no limit. Base and boosts are
            scaled down together to meet it.
        base: (N,) factors above 0 that images have anyway; 1 if None.
    """
    _check_limits(floor, cap, budget)
    base = np.ones(len(boost)) if base is None else base
    logs = float(np.log(cap / floor)) * boost
    scale = 1.0 if budget is None else _budget_scale(logs + np.log(base), budget)
    # floor · exp(log(cap / floor)) may round above the cap.
    return np.asarray(np.minimum(floor * np.exp(scale * logs), cap) * base**scale)


def _check_limits(floor: float, cap: float, budget: float | None) -> None:
    if not 0.0 < floor <= cap < np.inf:
        raise InputError(
            f"floor and cap must satisfy 0 < floor <= cap, got floor={floor}, cap={cap}"
        )
    if budget is not None and not 0.0 <= budget <= 1.0:
        raise InputError(f"budget is a share of draws in [0, 1], got {budget}")


def importance_weights(weights: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Give the factors for the loss that undo the bias of drawing by weight.

    With p_i = w_i / sum(w), the factor is 1 / (N p_i): the mean of factor × loss over the draws
    has the expectation of the mean loss over uniformly drawn images, so gradients stay unbiased.

    Args:
        weights: (N,) sampling weights, not negative, not all zero.

    Returns:
        (N,) factors; 0 for an image of weight 0, which is never drawn and cannot be made up for.

    >>> importance_weights([1.0, 3.0])
    array([2.        , 0.66666667])
    """
    drawn_by = np.asarray(weights, np.float64)
    factors = np.zeros(len(drawn_by))
    np.divide(drawn_by.mean(), drawn_by, out=factors, where=drawn_by > 0)
    return factors


@dataclass(frozen=True)
class WeightReport:
    """What drawing by a weight vector does to an epoch, compared with uniform drawing.

    Attributes:
        num_images: N.
        num_raised: Images that are drawn more often than uniformly.
        mean: Mean weight.
        quantiles: Weights at the shares ``QUANTILES``.
        effective_size: Kish's effective sample size, (Σw)² / Σw², of N: as many equally weighted
            images would give as precise a mean.
        moved_share: Share of draws that go to other images than uniform drawing would take.
        class_draws: (C,) expected instances of each class drawn, relative to uniform drawing;
            1 = unchanged, NaN where a class has none. None without labels.
        head_share_before: Share of head-class instances among all those drawn uniformly. The head
            is the fewest classes that together hold half of all instances.
        head_share_after: The same when drawn by weight.
    """

    num_images: int
    num_raised: int
    mean: float
    quantiles: tuple[float, ...]
    effective_size: float
    moved_share: float
    class_draws: npt.NDArray[np.float64] | None = None
    head_share_before: float | None = None
    head_share_after: float | None = None


def report_weights(
    weights: npt.ArrayLike, class_counts: scipy.sparse.spmatrix | npt.ArrayLike | None = None
) -> WeightReport:
    """Describe what drawing by these weights will do.

    Args:
        weights: (N,) sampling weights.
        class_counts: (N, C) instances of each class in each image, sparse or dense.
    """
    drawn_by = np.asarray(weights, np.float64)
    total = drawn_by.sum()
    class_draws = before = after = None
    if class_counts is not None:
        counts: Any = class_counts if hasattr(class_counts, "tocsr") else np.asarray(class_counts)
        plain = np.asarray(counts.sum(axis=0), np.float64).ravel()
        drawn = np.asarray(counts.T @ (drawn_by * (len(drawn_by) / total)), np.float64).ravel()
        class_draws = np.full(len(plain), np.nan)
        np.divide(drawn, plain, out=class_draws, where=plain > 0)
        if plain.sum() > 0:
            head = _head(plain)
            before = float(plain[head].sum() / plain.sum())
            after = float(drawn[head].sum() / drawn.sum())
    return WeightReport(
        num_images=len(drawn_by),
        num_raised=int((drawn_by > (1 + 1e-9) * total / len(drawn_by)).sum()),
        mean=float(drawn_by.mean()),
        quantiles=tuple(np.quantile(drawn_by, QUANTILES).tolist()),
        effective_size=float(total**2 / (drawn_by**2).sum()),
        moved_share=_moved_share(drawn_by),
        class_draws=class_draws,
        head_share_before=before,
        head_share_after=after,
    )


def _budget_scale(logs: npt.NDArray[np.float64], budget: float) -> float:
    """How far to scale the logarithms of weights so that they move at most ``budget`` of the draws.

    The further they are apart, the more they move, so halving finds the scale.
    """
    if _moved_share(np.exp(logs)) <= budget:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if _moved_share(np.exp(middle * logs)) <= budget:
            low = middle
        else:
            high = middle
    return low


def _moved_share(weights: npt.NDArray[np.float64]) -> float:
    """Share of the draws that go to other images than uniform drawing would take."""
    if not len(weights):
        return 0.0
    return float((weights / weights.sum() - 1 / len(weights)).clip(0).sum())


def _head(instances: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    order = np.argsort(-instances, kind="stable")
    half = np.searchsorted(np.cumsum(instances[order]), instances.sum() / 2)
    return order[: half + 1]


def _share(
    name: str,
    values: npt.ArrayLike,
    shape: tuple[int, ...],
    *,
    where: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Check that values are shares; what lies outside ``where`` is not looked at and becomes 0."""
    shares = np.asarray(values, np.float64)
    if shares.shape != shape:
        raise InputError(
            f"{name} must have shape {shape}, one value a query"
            f"{' and hit' if len(shape) > 1 else ''}, got {shares.shape}"
        )
    if where is not None:
        shares = np.where(where, shares, 0.0)
    bad = shares[~((shares >= 0) & (shares <= 1))]
    if len(bad):
        raise InputError(f"{name} must lie in [0, 1], got {bad[0]} and {len(bad) - 1} more")
    return shares

"""From targets and need to one sampling weight an image, and what the weights do to an epoch."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.errors import InputError
from hardmine.mining.targets import HIT, Targets
from hardmine.records import Hits

logger = logging.getLogger(__name__)

Floats = npt.NDArray[np.float64]

NO_LOOK = (
    "what is missed could not be looked at (that takes predicted boxes and an index of the "
    "validation images), so classes and queries decide to the end"
)

QUANTILES = (0.0, 0.25, 0.5, 0.75, 0.9, 0.99, 1.0)


@dataclass(frozen=True)
class WeightRules:
    """How far weights may lie apart.

    Attributes:
        cap: How many times as often an image that fully answers the weakest class is drawn as one
            that answers nothing, all else alike. 1 turns boosts off.
        balance: How far draws follow what validation misses and training seldom shows, by class
            and by look, and classes come as often as those they are mistaken for, in [0, 1]. 0: not
            at all. 1: as often as it is missed. 0.5: by the square root of that, as another view of
            the same image is worth less than the first.
        classes: ``"missed"`` draws classes as ``balance`` says. ``"alike"`` draws each class as
            often as any other, as class-aware sampling does, and ``"unchanged"`` as often as
            training shows it; ``balance`` then counts for look alone.
        look_from: Share of the training from which draws follow nothing but the look of what
            validation misses, as often as it is missed, and classes come as training shows them:
            what is drawn last decides. From the validation before on, if the next one is at the
            end. 1: not at all.
        max_passes: How often the whole training may draw an image, on average, for these rules to
            hold before ``look_from``. Where it draws images more often, it learns them by heart,
            the more so those it draws most: all are then drawn equally often until ``look_from``.
    """

    cap: float = 1.75
    balance: float = 0.5
    classes: str = "missed"
    look_from: float = 0.75
    max_passes: float = 12.0

    def __post_init__(self) -> None:
        if self.classes not in ("missed", "alike", "unchanged"):
            raise InputError(
                'WeightRules.classes must be "missed", "alike" or "unchanged", '
                f"got {self.classes!r}"
            )
        _require("cap", self.cap, 1.0, np.inf, "at least 1 (1: no boosts)")
        _require("balance", self.balance, 0.0, 1.0, "in [0, 1]")
        _require("look_from", self.look_from, 0.0, 1.0, "in [0, 1]")
        _require("max_passes", self.max_passes, 0.0, np.inf, "at least 0")

    @property
    def look_alone(self) -> bool:
        """Whether draws follow nothing but the look of what validation misses."""
        return self.classes == "unchanged" and self.cap == 1 and self.balance > 0

    @property
    def drawn_by(self) -> str:
        """What draws follow, where that is neither classes nor queries; empty if it is."""
        if self.classes != "unchanged" or self.cap > 1:
            return ""
        if self.balance > 0:
            return "draws follow only the look of what is missed"
        until = "" if self.look_from == 1 else f"until {100 * self.look_from:g} % of the training "
        return f"all images are drawn equally often {until}(max_passes: {self.max_passes:g})"

    def at(self, passes_done: float, passes: float, *, last: bool = False) -> WeightRules:
        """The rules in one place of a training.

        Args:
            passes_done: How often training has drawn an image so far, on average.
            passes: The same of the whole training; 0 if not known.
            last: Whether no rules follow, as training ends before the next validation.
        """
        if passes == 0:
            return self
        if not 0 <= passes_done <= passes < np.inf:
            raise InputError(
                "expected 0 <= epochs_done <= epochs, those of the whole training, got "
                f"{passes_done} and {passes} passes over the images"
            )
        # Not all shares of epochs are exact.
        late = last or passes_done >= self.look_from * passes * (1 - 1e-9)
        if self.look_from < 1 and late:
            return replace(self, cap=1.0, balance=1.0, classes="unchanged")
        if passes > self.max_passes * (1 + 1e-9):
            return replace(self, cap=1.0, balance=0.0, classes="unchanged")
        return self


def _require(name: str, value: object, low: float, high: float, expected: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (low <= float(value) <= high and np.isfinite(float(value))):  # type: ignore[arg-type]
        raise InputError(f"WeightRules.{name} must be {expected}, got {value!r}")


NAMED_RULES = {
    "class-aware": WeightRules(cap=1.0, balance=0.0, classes="alike"),
}


def named_rules(name: str) -> WeightRules:
    """The rules of a name.

    Raises:
        InputError: If there are none.
    """
    if name not in NAMED_RULES:
        raise InputError(f"there are no rules called {name!r}; known: {', '.join(NAMED_RULES)}")
    return NAMED_RULES[name]


class Schedule:
    """The rules of each place in a training, which is told in epochs of the sampler.

    Args:
        rules: Those of the whole training; None if a policy draws.
        draws_per_image: How often an epoch draws an image, on average.

    Attributes:
        epoch_share: Share of an epoch that training draws; set it where that is not 1.
    """

    def __init__(self, rules: WeightRules | None, draws_per_image: float) -> None:
        self._rules = rules
        self._draws_per_image = draws_per_image
        self.epoch_share = 1.0
        self._stepped_at: float | None = 0.0  # epochs that were done at the last step
        self._warned = False

    def step(self, epochs_done: float, epochs: float, every: float | None) -> WeightRules | None:
        """The rules of a round, from which the next one counts its ``every`` if that is None."""
        if every is None:
            every = 0.0 if self._stepped_at is None else epochs_done - self._stepped_at
        rules = self.rules_at(epochs_done, epochs, every)
        self._stepped_at = epochs_done
        if epochs == 0 and rules is not None and rules.look_from < 1 and not self._warned:
            self._warned = True
            logger.warning(
                "the length of the training is not known (epochs_done=, epochs=), so draws follow "
                "the same rules to its end, and not what missed objects look like"
            )
        return rules

    def resume(self) -> None:
        """Forget when the last round was."""
        self._stepped_at = None

    def rules_at(self, epochs_done: float, epochs: float, every: float) -> WeightRules | None:
        """The rules in one place.

        Args:
            epochs_done: Epochs that are done.
            epochs: Those of the whole training; 0 if not known.
            every: Epochs between validations; 0 if not known.
        """
        if self._rules is None:
            return None
        draws = self._draws_per_image * self.epoch_share
        # Weights count from the next epoch on, and not all shares of epochs are exact.
        last = every > 0 and math.ceil(epochs_done + every - 1e-6) >= epochs
        return self._rules.at(epochs_done * draws, epochs * draws, last=last)


def image_weights(
    found: Targets | Hits,
    need: npt.ArrayLike,
    *,
    num_images: int,
    class_rows: npt.NDArray[np.int64] | None = None,
    trust: npt.ArrayLike | None = None,
    balance: Floats | None = None,
    rules: WeightRules | None = None,
) -> Floats:
    """Give every image a sampling weight, larger where weak classes were found.

    1. boost:   what the image answers of what is weak, in [0, 1]; see ``Targets.boost``
    2. weight:  cap^boost · balance

    Factors rather than summands: where most images answer a little, those that answer most must
    still stand out. Weights are relative. An image that no query found keeps its balance factor.

    Args:
        found: The images found for each of Q queries: targets, or the hits of ``Index.search``,
            whose scores, cut to [0, 1], then say how far an image answers.
        need: (Q,) how weak the class behind each query is, in [0, 1]; 0 switches the query off.
        num_images: N.
        class_rows: (Q,) ascending, the class of each query, so that a class and its contexts add
            up; None if each query is a class of its own.
        trust: (Q,) in [0, 1], how far each query's hits are right; 1 if None. For hits alone:
            the strengths of targets include it.
        balance: (N,) factors above 0; see ``balance_factors``. 1 if None.
        rules: Limits; those of a training loop by default.

    Returns:
        (N,) weights.

    >>> hits = Hits(np.array([[2, 0]]), np.float32([[1.0, 0.5]]), np.zeros((1, 2, 4), np.float32))
    >>> image_weights(hits, [1.0], num_images=4).round(3)
    array([1.323, 1.   , 1.75 , 1.   ])
    """
    rules = rules or WeightRules()
    needs = _shares("need", need)
    targets = found if isinstance(found, Targets) else _targets_of_hits(found, trust)
    rows = targets.image_rows
    if len(rows) and rows.max() >= num_images:
        raise InputError(
            f"a hit names image row {rows.max()} of {num_images} images; "
            "was the index built on another split?"
        )
    num_queries = len(found.image_rows) if isinstance(found, Hits) else len(needs)
    if len(needs) != num_queries:
        raise InputError(
            f"need must have one value a query (expected {num_queries}, got {len(needs)})"
        )
    classes = np.arange(num_queries) if class_rows is None else class_rows
    boost = targets.boost(needs, classes, num_images)
    # Powers of the cap may round above it.
    weights = np.minimum(rules.cap**boost, rules.cap)
    return np.asarray(weights if balance is None else weights * balance)


def _targets_of_hits(hits: Hits, trust: npt.ArrayLike | None) -> Targets:
    found = hits.found
    queries = np.nonzero(found)[0].astype(np.int32)
    scores = hits.scores[found]
    strengths = scores.clip(0, 1)
    if trust is not None:
        factors = _shares("trust", trust)
        if len(factors) != len(found):
            raise InputError(
                f"trust must have one value a query (expected {len(found)}, got {len(factors)})"
            )
        strengths = strengths * factors[queries]
    return Targets(
        queries,
        hits.image_rows[found],
        np.full(len(queries), HIT, np.int8),
        strengths.astype(np.float32),
        scores,
    )


def _shares(name: str, values: npt.ArrayLike) -> Floats:
    shares = np.asarray(values, np.float64)
    bad = shares[~((shares >= 0) & (shares <= 1))]
    if shares.ndim != 1 or len(bad):
        got = f"shape {shares.shape}" if shares.ndim != 1 else f"{bad[0]} and {len(bad) - 1} more"
        raise InputError(f"{name} must be one value in [0, 1] a query, got {got}")
    return shares


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
    if len(drawn_by) and not (np.isfinite(drawn_by).all() and drawn_by.min() >= 0 < drawn_by.max()):
        raise InputError("weights must be finite, none negative and not all zero")
    # Only ratios count: a sum of large weights must not overflow.
    ratios = drawn_by / drawn_by.max(initial=0.0) if len(drawn_by) else drawn_by
    factors = np.zeros(len(ratios))
    with np.errstate(over="ignore"):
        np.divide(ratios.mean() if len(ratios) else 0.0, ratios, out=factors, where=ratios > 0)
    return np.minimum(factors, np.finfo(np.float64).max)


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


def _moved_share(weights: npt.NDArray[np.float64]) -> float:
    """Share of the draws that go to other images than uniform drawing would take."""
    if not len(weights):
        return 0.0
    return float((weights / weights.sum() - 1 / len(weights)).clip(0).sum())


def _head(instances: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    order = np.argsort(-instances, kind="stable")
    half = np.searchsorted(np.cumsum(instances[order]), instances.sum() / 2)
    return order[: half + 1]

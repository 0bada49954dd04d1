"""Average precision of rankings: pure functions, NumPy in, NumPy out.

Three readings of AP@k are in use. All sum the precision at each hit among the first k; they
differ in the divisor: min(relevant, k), the hits found among the first k, or all relevant.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Reading = Literal["min", "found", "relevant"]


def rank_hits(scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None) -> Bools:
    """Whether each place of each ranking holds a relevant image, best place first.

    Of images with equal scores the irrelevant come first, so a tie never favours the system
    under test. Ignored images stand behind all others, as irrelevant: there they change nothing.

    Args:
        scores: (C, N), higher = better; -inf is allowed, NaN is not.
        relevant: (C, N).
        ignored: (C, N) images left out of a ranking; None for none.

    Returns:
        (C, N) hits in ranked order.

    >>> rank_hits(np.array([[0.2, 0.9, 0.2]]), np.array([[True, False, False]]), None)
    array([[False, False,  True]])
    """
    keys = _ranking_keys(scores, relevant, ignored)
    keys.sort(axis=1)
    # The lowest bit says irrelevant; ascending order reversed is best first.
    hits: Bools = (keys[:, ::-1] & 1) == 0
    return hits


def ranking_order(
    scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None
) -> npt.NDArray[np.int64]:
    """Images in the order that ``rank_hits`` ranks them: (C, N) image positions, best first."""
    keys = _ranking_keys(scores, relevant, ignored)
    return np.argsort(keys, axis=1, kind="stable")[:, ::-1]


def _ranking_keys(
    scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None
) -> npt.NDArray[np.int64]:
    """One integer an image: its score's order in the high bits, "irrelevant" in the lowest."""
    if scores.shape != relevant.shape:
        raise InputError(
            f"scores and relevant must have one shape, got {scores.shape} and {relevant.shape}"
        )
    if np.isnan(scores).any():
        raise InputError("scores hold NaN; the image or text vectors behind them are broken")
    # Adding zero turns -0.0 into 0.0: they are equal and must get one key.
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (ordered << 1) | ~relevant
    if ignored is not None:
        if (relevant & ignored).any():
            raise InputError("an image cannot be both relevant to a query and ignored for it")
        keys[ignored] = np.iinfo(np.int64).min | 1
    return keys


def average_precision(hits: Bools) -> Floats:
    """AP over the whole ranking: mean precision at the relevant images; NaN if there are none.

    Args:
        hits: (C, N) from ``rank_hits``.

    >>> average_precision(np.array([[True, False, True], [False, False, False]])).round(3)
    array([0.833,   nan])
    """
    return _mean_over(precision_sum(hits), hits.sum(axis=1))


def average_precision_at(hits: Bools, k: int, reading: Reading = "min") -> Floats:
    """AP over the first k places; NaN for a class without relevant images.

    With ``reading="found"`` a class with relevant images, none of them among the first k, gets 0.

    >>> hits = np.array([[True, False, False, True]])
    >>> [average_precision_at(hits, 2, r).item() for r in ("min", "found", "relevant")]
    [0.5, 1.0, 0.5]
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    num_relevant = hits.sum(axis=1)
    top = hits[:, :k]
    if reading == "min":
        divisor = np.minimum(num_relevant, k)
    elif reading == "found":
        divisor = np.where(num_relevant > 0, np.maximum(top.sum(axis=1), 1), 0)
    else:
        divisor = num_relevant
    return _mean_over(precision_sum(top), divisor)


def precision_sum(hits: Bools) -> Floats:
    """Sum over the hits of the precision at each: (C,)."""
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1, dtype=np.int32) / places
    total: Floats = np.where(hits, precision, 0).sum(axis=1)
    return total


def recall_at(hits: Bools, k: int) -> Floats:
    """Share of queries' relevant images among the first k; NaN where there are none."""
    return _mean_over(hits[:, :k].sum(axis=1).astype(float), hits.sum(axis=1))


def _mean_over(total: Floats, count: npt.NDArray[np.integer]) -> Floats:
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean

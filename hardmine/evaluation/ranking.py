"""Average precision of rankings: pure functions, NumPy in, NumPy out.

Three definitions of AP@k are in use. All sum the precision at each hit among the first k. They
divide by different counts: min(relevant, k), the hits found among the first k, or all relevant.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]
Divisor = Literal["min", "found", "relevant"]


def rank_hits(scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None) -> Bools:
    """Rank images by score and return which places hold a relevant one.

    Of images with equal scores the irrelevant come first, so a tie never favours the system
    under test. Ignored images are ranked last, as irrelevant, where they change no metric.

    Args:
        scores: (C, N), higher = more similar; -inf is allowed, NaN is not.
        relevant: (C, N).
        ignored: (C, N) images left out of a ranking; None for none.

    Returns:
        (C, N) whether each place is a hit, best place first.

    >>> rank_hits(np.array([[0.2, 0.9, 0.2]]), np.array([[True, False, False]]), None)
    array([[False, False,  True]])
    """
    keys = _ranking_keys(scores, relevant, ignored)
    keys.sort(axis=1)
    # The lowest bit marks an irrelevant image; ascending order reversed is best first.
    hits: Bools = (keys[:, ::-1] & 1) == 0
    return hits


def ranking_order(
    scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None
) -> npt.NDArray[np.int64]:
    """(C, N) image positions in the order of ``rank_hits``, best first."""
    keys = _ranking_keys(scores, relevant, ignored)
    return np.argsort(keys, axis=1, kind="stable")[:, ::-1]


def _ranking_keys(
    scores: npt.NDArray[np.floating], relevant: Bools, ignored: Bools | None
) -> npt.NDArray[np.int64]:
    """(C, N) integers that sort like the scores; the lowest bit marks an irrelevant image."""
    if scores.shape != relevant.shape:
        raise InputError(
            f"scores and relevant must have the same shape, got {scores.shape} and {relevant.shape}"
        )
    if np.isnan(scores).any():
        raise InputError("scores must not be NaN; do the image or text vectors hold NaN?")
    # Adding zero turns -0.0 into 0.0: they are equal and must get the same key.
    bits = (np.asarray(scores, np.float32) + np.float32(0)).view(np.int32).astype(np.int64)
    ordered = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (ordered << 1) | ~relevant
    if ignored is not None:
        if (relevant & ignored).any():
            raise InputError("an image cannot be both relevant to a query and ignored for it")
        keys[ignored] = np.iinfo(np.int64).min | 1
    return keys


def average_precision(hits: Bools) -> Floats:
    """AP over the whole ranking: mean precision at its hits; NaN without relevant images.

    Args:
        hits: (C, N) from ``rank_hits``.

    >>> average_precision(np.array([[True, False, True], [False, False, False]])).round(3)
    array([0.833,   nan])
    """
    return _mean_over(_precision_sum(hits), hits.sum(axis=1))


def average_precision_at(hits: Bools, k: int, divisor: Divisor = "min") -> Floats:
    """AP over the first k places; NaN for a class without relevant images.

    Args:
        hits: (C, N) from ``rank_hits``.
        k: Number of places.
        divisor: Which count to divide by: min(relevant, k), the hits found among the first k, or
            all relevant. With "found" a class without a hit among the first k gets 0.

    >>> hits = np.array([[True, False, False, True]])
    >>> [average_precision_at(hits, 2, r).item() for r in ("min", "found", "relevant")]
    [0.5, 1.0, 0.5]
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    num_relevant = hits.sum(axis=1)
    top = hits[:, :k]
    if divisor == "min":
        count = np.minimum(num_relevant, k)
    elif divisor == "found":
        count = np.where(num_relevant > 0, np.maximum(top.sum(axis=1), 1), 0)
    else:
        count = num_relevant
    return _mean_over(_precision_sum(top), count)


def _precision_sum(hits: Bools) -> Floats:
    """(C,) sum of the precision at each hit."""
    places = np.arange(1, hits.shape[1] + 1)
    precision = hits.cumsum(axis=1, dtype=np.int32) / places
    total: Floats = np.where(hits, precision, 0).sum(axis=1)
    return total


def recall_at(hits: Bools, k: int) -> Floats:
    """(C,) share of the relevant images among the first k; NaN without relevant images."""
    return _mean_over(hits[:, :k].sum(axis=1).astype(float), hits.sum(axis=1))


def _mean_over(total: Floats, count: npt.NDArray[np.integer]) -> Floats:
    mean = np.full(len(total), np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean

"""How right retrieval is: each query's best hits, checked against the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hardmine.mining.labels import ABSENT, PRESENT, Labels

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Row = npt.NDArray[np.floating[Any]]
# One row of N scores a query: an array, or a list of rows.
Scores: TypeAlias = "Sequence[Row] | npt.NDArray[np.floating[Any]]"

_MUTE_BELOW = 0.1  # precision below which a query's hits are noise


@dataclass(frozen=True)
class Trust:
    """How far each of Q queries can be trusted.

    Attributes:
        precision: (Q,) share of the best hits that the labels confirm, pulled towards the mean of
            all queries where few labels are known; NaN where no label is known.
        checked: (Q,) int64 hits whose label is known.
        factor: (Q,) in [0, 1], multiplies what retrieval contributes: the precision, 0 where that
            is below 0.1, 1 where there are no labels to check against.
    """

    precision: Floats
    checked: npt.NDArray[np.int64]
    factor: Floats


def measure_trust(
    scores: Scores,
    class_rows: Rows,
    labels: Labels,
    *,
    hits: int = 100,
    smoothing: float = 5.0,
    mute: float = _MUTE_BELOW,
) -> Trust:
    """Check each query's best hits against the labels.

    A class with n labelled images is checked on its best n hits (at least 10, at most ``hits``),
    so that a perfect query has precision 1 however rare its class. Only images whose label is
    known count: with federated labels (LVIS) those verified present or absent.

    Args:
        scores: (Q, N) similarity of each image, -inf where it is not in the index.
        class_rows: (Q,) class of each query.
        labels: Presence of C classes in N images.
        hits: Most hits to check for a query.
        smoothing: Number of hits at the mean precision that are added to each query's own.
        mute: Precision below which the factor is 0.
    """
    correct, checked = np.zeros(len(class_rows)), np.zeros(len(class_rows), np.int64)
    num_present = labels.num_present()
    for query, class_row in enumerate(class_rows.tolist()):
        status = labels.status(class_row)
        known = np.flatnonzero((status >= ABSENT) & np.isfinite(scores[query]))
        count = min(max(int(num_present[class_row]), 10), hits, len(known))
        if num_present[class_row] == 0 or count == 0:
            continue
        best = top_positions(scores[query][known], count)
        checked[query] = count
        correct[query] = (status[known[best]] == PRESENT).sum()
    measured = checked > 0
    mean = correct.sum() / checked.sum() if measured.any() else 0.0
    with np.errstate(invalid="ignore"):
        precision = np.where(measured, (correct + smoothing * mean) / (checked + smoothing), np.nan)
    factor = np.where(measured, np.where(precision >= mute, precision, 0.0), 1.0)
    return Trust(precision, checked, factor)


def top_positions(
    values: npt.NDArray[np.floating], count: int, *, include_ties: bool = False
) -> Rows:
    """Positions of the largest values, best first, equal ones by position.

    With ``include_ties`` all that equal the last one are included: several of the sampler's rows
    may show the same image, and they must be treated alike.
    """
    if count <= 0:
        return np.zeros(0, np.int64)
    if count < len(values):
        edge = np.partition(values, len(values) - count)[len(values) - count]
        above = np.flatnonzero(values > edge)
        ties = np.flatnonzero(values == edge)
        if not include_ties:
            ties = ties[: count - len(above)]
        chosen = np.sort(np.concatenate([above, ties]))
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")].astype(np.int64)

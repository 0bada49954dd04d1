"""How right retrieval is: each query's best hits, checked against the labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.mining.evidence import Evidence

Floats = npt.NDArray[np.float64]

_MIN_PRECISION = 0.1  # a query's hits are noise below it
_PRIOR_HITS = 5.0  # at the mean precision, added to each query's own


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


def measure_trust(evidence: Sequence[Evidence]) -> Trust:
    """Check each query's best hits against the labels.

    Only images whose label is known count: with federated labels (LVIS) those verified present or
    absent.

    Args:
        evidence: Of Q queries.
    """
    correct = np.array([found.correct for found in evidence], np.float64)
    checked = np.array([found.checked for found in evidence], np.int64)
    measured = checked > 0
    mean = correct.sum() / checked.sum() if measured.any() else 0.0
    with np.errstate(invalid="ignore"):
        smoothed = (correct + _PRIOR_HITS * mean) / (checked + _PRIOR_HITS)
    precision = np.where(measured, smoothed, np.nan)
    factor = np.where(measured, np.where(precision >= _MIN_PRECISION, precision, 0.0), 1.0)
    return Trust(precision, checked, factor)

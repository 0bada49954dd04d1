"""Do failures go with a value, such as how dark a place is? A test with classes and sizes fixed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.special import stdtr

from hardmine.detections.outcomes import Outcomes

Floats = npt.NDArray[np.float64]

_MIN_STRATUM = 20  # objects of a class and an octave that are compared among themselves alone


@dataclass(frozen=True)
class Association:
    """How X values go with failures.

    Attributes:
        z: (X,) above 0 where failures come with higher values.
        p: (X,) one-sided: how often chance alone gives such a z or a higher one.
    """

    z: Floats
    p: Floats


class FailureTest:
    """Tests whether failures come with higher values, among objects of the same class and size.

    A score test of the conditional kind: failures and values are compared with their means over the
    stratum, a class and an octave of area, so that neither class nor size can explain what is
    found. Where a class shows few objects of an octave, they are compared with those of its other
    octaves, after the mean over each octave of all classes is taken out.

    Objects of one image fail together, so each image counts as one observation of
    Σ (failed - mean) · (value - mean), and the variance is that of the images (sandwich). Where few
    images carry the sum, Student's t replaces the normal distribution, with Kish's number of images
    as degrees of freedom.

    Args:
        outcomes: M places.
        values: (M, X).
    """

    def __init__(self, outcomes: Outcomes, values: npt.NDArray[np.float32]) -> None:
        sizes = _octaves(outcomes)
        groups = [_groups(names) for names in (sizes, _strata(outcomes.class_rows, sizes))]
        self._images = _groups(outcomes.image_rows)
        self._values: npt.NDArray[np.floating] = np.asarray(values, np.float32)
        failed = outcomes.failed.astype(np.float64)
        self._failed = failed
        for group in groups:
            self._values = _centred(self._values, group)
            self._failed = _centred(self._failed[:, None], group)[:, 0].astype(np.float64)
        # (M,) how often places of the same class and size fail.
        self.expected = failed - self._failed

    def residuals(self, given: npt.NDArray[np.floating]) -> tuple[Floats, Floats, Floats]:
        """What class, size and some directions leave of failures and values.

        Args:
            given: (K, X) directions in the space of the values.

        Returns:
            (M,) failures, (M, X) values, and the (K, X) slopes: what was taken out of a value is
            its products with the directions times these.
        """
        values = self._values.astype(np.float64)
        known = values @ given.T.astype(np.float64)
        both = np.column_stack([self._failed, values])
        slopes = np.linalg.lstsq(known, both, rcond=None)[0].astype(np.float64)
        both -= known @ slopes
        return both[:, 0], both[:, 1:], slopes[:, 1:]

    def association(
        self, columns: Sequence[int] | None = None, *, given: Sequence[int] = ()
    ) -> Association:
        """Test some columns of the values, beyond what the columns ``given`` explain."""
        failed = self._failed
        values = self._values if columns is None else self._values[:, list(columns)]
        if len(given):
            known = self._values[:, list(given)].astype(np.float64)
            failed = failed - known @ np.linalg.lstsq(known, failed, rcond=None)[0]
            values = values - known @ np.linalg.lstsq(known, values, rcond=None)[0]
        sums = (self._images @ (values * failed[:, None].astype(np.float32))).astype(np.float64)
        squares = (sums**2).sum(axis=0)
        safe = squares.clip(min=1e-300)
        z = np.where(squares > 0, sums.sum(axis=0) / np.sqrt(safe), 0.0)
        fourth = (sums**4).sum(axis=0).clip(min=1e-300)
        degrees = (squares**2 / fourth - 1).clip(min=1)
        return Association(z, stdtr(degrees, -z))


def benjamini_hochberg(p: Floats, rate: float) -> float:
    """The largest p-value that counts as found, so that ``rate`` of those found are false; or -1.

    Holds where tests that are true nulls are positively dependent (Benjamini and Yekutieli, 2001).

    >>> benjamini_hochberg(np.array([0.01, 0.02, 0.3, 0.6]), 0.05)
    0.02
    """
    ordered = np.sort(p)
    below = np.flatnonzero(ordered <= rate * np.arange(1, len(p) + 1) / max(len(p), 1))
    return float(ordered[below[-1]]) if len(below) else -1.0


def _octaves(outcomes: Outcomes) -> npt.NDArray[np.int64]:
    """(M,) the octave of each area, from 0 to 127."""
    sides = (outcomes.boxes[:, 2:] - outcomes.boxes[:, :2]).clip(min=1e-3)
    return np.asarray(np.round(np.log2(sides.prod(axis=1))).astype(np.int64) + 64)


def _strata(
    class_rows: npt.NDArray[np.int64], octaves: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """(M,) a number for each class and octave; one for all octaves of a class with few objects."""
    strata = class_rows * 129 + octaves
    _, places, counts = np.unique(strata, return_inverse=True, return_counts=True)
    return np.where(counts[places.ravel()] < _MIN_STRATUM, class_rows * 129 + 128, strata)


def _groups(names: npt.NDArray[np.int64]) -> scipy.sparse.csr_matrix:
    """(groups, M) matrix that sums over groups of equal names."""
    groups = np.unique(names, return_inverse=True)[1].ravel()
    shape = (int(groups.max(initial=-1)) + 1, len(groups))
    ones = np.ones(len(groups), np.float32)
    return scipy.sparse.csr_matrix((ones, (groups, np.arange(len(groups)))), shape)


def _centred(
    values: npt.NDArray[np.floating], groups: scipy.sparse.csr_matrix
) -> npt.NDArray[np.floating]:
    sizes = np.asarray(groups.sum(axis=1))
    centred: npt.NDArray[np.floating] = values - groups.T @ ((groups @ values) / sizes).astype(
        values.dtype
    )
    return centred

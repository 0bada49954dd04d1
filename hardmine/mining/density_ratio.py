"""Where the detector misses objects more often than training shows any: a density ratio.

Whatever is weak, be it night, rain, crowds or a camera that training hardly knows, validation
images on which objects are missed tell, without a name for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
from scipy.optimize import minimize
from scipy.special import logsumexp

from hardmine.detections import Matches, find_outcomes
from hardmine.records import ImageSet, names_to_rows

Floats = npt.NDArray[np.float64]

MAX_RATIO = 20.0  # and 1 / 20 at least
_NUM_TRAIN = 20_000  # training images that a fit looks at
# Of the log ratio over the training images, before anything is seen. A larger one brings draws
# nearer to what is missed, by drawing few images very often: docs/evidence.md.
_PRIOR_DEVIATION = 0.3


@dataclass(frozen=True)
class DensityRatio:
    """How many times as often missed objects of validation as objects of training lie somewhere.

    The logarithm is linear in an image's mean region vector x: ``direction · x + offset``.

    Attributes:
        direction: D numbers, from what training shows often to what validation misses.
        offset: Makes the ratio 1 on average over training.
    """

    direction: tuple[float, ...]
    offset: float

    def of(self, vectors: npt.NDArray[np.floating]) -> Floats:
        """(N,) ratios of N images, within ``MAX_RATIO``; 1 for a vector of zeros (no regions)."""
        values = vectors.astype(np.float64) @ np.array(self.direction) + self.offset
        logs = np.where(vectors.any(axis=1), values, 0)
        limit = np.log(MAX_RATIO)
        return np.asarray(np.exp(logs.clip(-limit, limit)))


def sample_rows(num_images: int) -> npt.NDArray[np.int64]:
    """(T,) rows of the training images that a fit looks at: all, or 20,000 at equal distances."""
    return np.linspace(0, num_images - 1, min(num_images, _NUM_TRAIN)).astype(np.int64)


def fit_density_ratio(
    missed: npt.NDArray[Any],
    missed_vectors: npt.NDArray[np.floating],
    shown: npt.NDArray[Any],
    shown_vectors: npt.NDArray[np.floating],
) -> DensityRatio | None:
    """Fit the ratio, so that training drawn by it looks on average like what is missed.

    Of all ratios that do, the one that changes draws least is the exponential of a linear function
    (entropy balancing; KLIEP among estimators of density ratios). A Gaussian prior around no change
    at all keeps the average back, the more so the fewer validation images tell it: few images, or
    images that do not differ, give a ratio near 1.

    Args:
        missed: (V,) objects missed in each validation image.
        missed_vectors: (V, D) mean region vectors of these images.
        shown: (T,) objects that each training image shows; see ``sample_rows``.
        shown_vectors: (T, D).

    Returns:
        The ratio; None if nothing is missed, or training shows nothing.
    """
    sides = []
    for counts, vectors in ((missed, missed_vectors), (shown, shown_vectors)):
        used = (counts > 0) & vectors.any(axis=1)
        if not used.any():
            return None
        shares = counts[used].astype(np.float64)
        sides.append((shares / shares.sum(), vectors[used].astype(np.float64)))
    (wanted, inside), (drawn, outside) = sides
    # 1. Features of mean 0 and mean squared length 1 over training.
    centre = drawn @ outside
    features = outside - centre
    length = np.sqrt(drawn @ (features**2).sum(axis=1))
    if length < 1e-9:
        return None
    features /= length
    target = (wanted @ inside - centre) / length
    # 2. As many images as validation is worth as a sample, by Kish's effective size.
    size = 1 / (wanted**2).sum()

    # 3. Penalised likelihood; convex, so the start does not matter.
    log_drawn = np.log(drawn)

    def loss(direction: Floats) -> tuple[float, Floats]:
        logs = features @ direction + log_drawn
        total = logsumexp(logs)
        gradient = size * (np.exp(logs - total) @ features - target)
        penalty = direction @ direction / (2 * _PRIOR_DEVIATION**2)
        value = size * (total - target @ direction) + penalty
        return float(value), gradient + direction / _PRIOR_DEVIATION**2

    start = np.zeros(features.shape[1])
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    direction = found / length
    # The ratio is 1 on average over training.
    offset = -logsumexp(features @ found + log_drawn) - direction @ centre
    return DensityRatio(tuple(direction.tolist()), float(offset))


def count_objects(
    images: ImageSet, matches: Matches, class_names: Sequence[str]
) -> tuple[scipy.sparse.csr_matrix, scipy.sparse.csr_matrix]:
    """Objects of each class in each image, twice (V, C): those the detector missed, and all.

    An object is missed if no confident detection of its class found it. A class that is never found
    is missed everywhere.

    Args:
        images: V images with labels.
        matches: Of the detector on them.
        class_names: C names; objects of other classes do not count, nor do crowds.
    """
    objects, _ = find_outcomes(images, matches)
    columns = names_to_rows(images.class_names, class_names)[objects.class_rows]
    shape = (len(images), len(class_names))

    def count(chosen: npt.NDArray[np.bool_]) -> scipy.sparse.csr_matrix:
        where = (objects.image_rows[chosen], columns[chosen])
        ones = np.ones(int(chosen.sum()), np.int64)
        return scipy.sparse.csr_matrix((ones, where), shape=shape)

    return count(objects.failed & (columns >= 0)), count(columns >= 0)

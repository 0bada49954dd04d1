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
from scipy.special import expit

from hardmine.detections import Matches, find_outcomes
from hardmine.records import ImageSet, names_to_rows

Floats = npt.NDArray[np.float64]

MAX_RATIO = 20.0  # and 1 / 20 at least
_NUM_TRAIN = 20_000  # training images that a fit looks at
_PRIOR_DEVIATION = 1.0  # of the log ratio over the training images, before anything is seen


@dataclass(frozen=True)
class DensityRatio:
    """How many times as often missed objects of validation as objects of training lie somewhere.

    The logarithm is linear in an image's mean region vector x: ``direction · x + offset``.

    Attributes:
        direction: D numbers, from what training shows often to what validation misses.
        offset: Makes the two alike in weight.
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
    """Fit the ratio by logistic regression: is this a missed object, or one that training shows?

    Both sides weigh as much as the validation images are worth as a sample, and the direction has
    a Gaussian prior around zero. So few images, or images that do not differ, give a ratio near 1.

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
        sides.append((counts[used].astype(np.float64), vectors[used].astype(np.float64)))
    (positive, inside), (negative, outside) = sides
    # 1. Features of mean 0 and mean squared length 1 over training.
    centre = np.average(outside, axis=0, weights=negative)
    length = np.sqrt(np.average(((outside - centre) ** 2).sum(axis=1), weights=negative))
    if length < 1e-9:
        return None
    features = (np.concatenate([inside, outside]) - centre) / length
    # 2. Kish's effective sample size of validation is the weight of each side.
    size = positive.sum() ** 2 / (positive**2).sum()
    weights = np.concatenate([positive / positive.sum(), negative / negative.sum()]) * size
    signs = np.concatenate([np.ones(len(positive)), -np.ones(len(negative))])

    # 3. Penalised likelihood; convex, so the start does not matter.
    def loss(parameters: Floats) -> tuple[float, Floats]:
        margins = signs * (features @ parameters[:-1] + parameters[-1])
        slopes = -weights * signs * expit(-margins)
        gradient = np.append(slopes @ features, slopes.sum())
        gradient[:-1] += parameters[:-1] / _PRIOR_DEVIATION**2
        penalty = (parameters[:-1] ** 2).sum() / (2 * _PRIOR_DEVIATION**2)
        return float(weights @ np.logaddexp(0, -margins) + penalty), gradient

    start = np.zeros(features.shape[1] + 1)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 200}).x
    direction = found[:-1] / length
    return DensityRatio(tuple(direction.tolist()), float(found[-1] - direction @ centre))


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

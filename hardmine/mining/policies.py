"""Ways of drawing that have a name: policies of weights in place of mining's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.mining.mine import MiningData, RoundInputs, WeightPolicy

Floats = npt.NDArray[np.float64]


def class_aware(counts: scipy.sparse.spmatrix) -> Floats:
    """Class-aware sampling: draw a class uniformly, then one of its images uniformly.

    Args:
        counts: (N, C) instances of each class in each image.

    Returns:
        (N,) weights. An image without instances has the mean weight of the others.
    """
    present = (counts > 0).astype(np.float64).tocsr()
    num_images = np.maximum(np.asarray(present.sum(axis=0)).ravel(), 1)
    return zeros_to_mean(np.asarray(present.multiply(1 / num_images).sum(axis=1)).ravel())


def zeros_to_mean(weights: Floats) -> Floats:
    """Give images that the labels tell nothing of the mean weight of the others."""
    known = weights > 0
    return np.where(known, weights, weights[known].mean() if known.any() else 1.0)


def named_policy(name: str) -> WeightPolicy:
    """The policy of a name.

    Raises:
        InputError: If there is none.
    """
    if name not in POLICIES:
        raise InputError(f"weights has no policy {name!r}; known: {', '.join(POLICIES)}")
    return POLICIES[name]


def _class_aware(inputs: RoundInputs, data: MiningData) -> Floats:
    return class_aware(data.labels.objects())


POLICIES: dict[str, WeightPolicy] = {"class-aware": _class_aware}

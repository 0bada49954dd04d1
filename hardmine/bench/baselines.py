"""Label-only baselines: sampling weights that others compute without looking at the images.

Class-aware sampling, one of them, is in ``hardmine.mining.balance``. Images whose labels are not
known get the mean weight of the others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse

Floats = npt.NDArray[np.float64]


def repeat_factors(counts: scipy.sparse.csr_matrix, *, threshold: float) -> Floats:
    """LVIS's repeat factor sampling.

    With f_c the share of images that show class c, the class's factor is
    r_c = max(1, sqrt(threshold / f_c)). The weight of an image is the largest r_c of its classes.

    Args:
        counts: (N, C) instances of each class in each image.
        threshold: Classes in a smaller share of the images are repeated.
    """
    present = (counts > 0).astype(np.float64).tocsr()
    shares = np.asarray(present.mean(axis=0)).ravel()
    factors = np.sqrt(threshold / np.maximum(shares, 1e-12)).clip(min=1)
    weights = np.asarray(present.multiply(factors).tocsr().max(axis=1).todense()).ravel()
    return np.asarray(weights.clip(min=1.0))


def inverse_ap(counts: scipy.sparse.csr_matrix, ap: Floats) -> Floats:
    """YOLOv5's image weights: each instance counts (1 - AP)² / number of instances of its class.

    Args:
        counts: (N, C) instances of each class in each image.
        ap: (C,) AP of the last validation; NaN is unknown and counts as 0.
    """
    instances = np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1)
    class_weights = (1 - np.nan_to_num(ap)) ** 2 / instances
    weights = np.asarray(counts.multiply(class_weights).sum(axis=1)).ravel()
    return np.where(weights > 0, weights, weights[weights > 0].mean())

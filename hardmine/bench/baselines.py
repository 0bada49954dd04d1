"""What others draw by: weights from labels alone, to be beaten at equal draws.

Images without known labels get the mean weight of the others.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse

Floats = npt.NDArray[np.float64]


def repeat_factors(counts: scipy.sparse.csr_matrix, *, threshold: float) -> Floats:
    """LVIS's repeat factor sampling.

    With f_c the share of images that show class c: r_c = max(1, sqrt(threshold / f_c)), and an
    image is repeated as its most wanted class asks, max over c of r_c.

    Args:
        counts: (N, C) instances of each class in each image.
        threshold: Share of the images below which a class is repeated.
    """
    shown = (counts > 0).astype(np.float64).tocsr()
    share = np.asarray(shown.mean(axis=0)).ravel()
    factors = np.sqrt(threshold / np.maximum(share, 1e-12)).clip(min=1)
    weights = np.asarray(shown.multiply(factors).tocsr().max(axis=1).todense()).ravel()
    return np.asarray(weights.clip(min=1.0))


def class_aware(counts: scipy.sparse.csr_matrix) -> Floats:
    """Choose a class, each as likely, then one of its images: the weight is an image's odds."""
    shown = (counts > 0).astype(np.float64).tocsr()
    images = np.maximum(np.asarray(shown.sum(axis=0)).ravel(), 1)
    return _or_mean(np.asarray(shown.multiply(1 / images).sum(axis=1)).ravel())


def inverse_ap(counts: scipy.sparse.csr_matrix, ap: Floats) -> Floats:
    """The image weights of YOLOv5: instances, by inverse class frequency times (1 - AP) squared.

    Args:
        counts: (N, C) instances of each class in each image.
        ap: (C,) of the last validation, NaN where unknown, which counts as 0.
    """
    instances = np.maximum(np.asarray(counts.sum(axis=0)).ravel(), 1)
    by_class = (1 - np.nan_to_num(ap)) ** 2 / instances
    return _or_mean(np.asarray(counts.multiply(by_class).sum(axis=1)).ravel())


def _or_mean(weights: Floats) -> Floats:
    return np.where(weights > 0, weights, weights[weights > 0].mean())

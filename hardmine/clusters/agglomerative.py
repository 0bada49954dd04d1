"""Agglomerative clustering of each image's patches, over its cosines."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.cluster.hierarchy
import torch
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram
from hardmine.clusters.mutual import mutual_dendrogram


def dendrogram(cosines: Tensor, linkage: str = "average") -> Dendrogram:
    """Merge the nearest pair of clusters, step by step, until one is left.

    On the CPU this is SciPy's linkage, image by image; elsewhere all images merge at once.

    Args:
        cosines: (B, P, P) float32 cosine of each pair of patches.
        linkage: "average" or "complete" of the cosine distance, or "ward" (heights are Euclidean,
            as scikit-learn's and SciPy's for unit vectors).
    """
    if cosines.device.type != "cpu" or cosines.shape[1] < 2:
        return mutual_dendrogram(cosines, linkage)
    batch, count, _ = cosines.shape
    above = np.triu_indices(count, 1)
    pairs = np.ravel_multi_index(above, (count, count))
    merges = np.empty((batch, count - 1, 4))
    for row, similar in enumerate(cosines.numpy()):
        distance = 1.0 - similar.reshape(-1)[pairs].astype(np.float64)
        if linkage == "ward":
            distance = np.sqrt(np.maximum(2 * distance, 0))
        merges[row] = scipy.cluster.hierarchy.linkage(distance, linkage)
    return _from_merges(merges)


def _from_merges(merges: npt.NDArray[np.float64]) -> Dendrogram:
    """Read SciPy's (B, P - 1, 4) merges, all images together."""
    batch, steps, _ = merges.shape
    count = steps + 1
    pair = merges[:, :, :2].astype(np.int64)
    images = np.arange(batch)
    names = np.tile(np.arange(count + steps), (batch, 1))  # lowest patch of each cluster
    parent = np.zeros((batch, count), np.int64)
    height = np.full((batch, count), np.inf)
    for step in range(steps):
        one, other = names[images, pair[:, step, 0]], names[images, pair[:, step, 1]]
        low, high = np.minimum(one, other), np.maximum(one, other)
        parent[images, high] = low
        height[images, high] = merges[:, step, 2]
        names[:, count + step] = low
    heights = torch.from_numpy(height)
    return Dendrogram(torch.from_numpy(parent), heights, order=heights)

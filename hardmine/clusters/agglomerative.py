"""Agglomerative clustering of each image's patches by their cosines."""

from __future__ import annotations

import numpy as np
import scipy.cluster.hierarchy
import torch
from scipy.spatial.distance import squareform
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram
from hardmine.clusters.mutual import mutual_dendrogram


def dendrogram(cosines: Tensor, linkage: str = "average") -> Dendrogram:
    """Merge the nearest pair of clusters, step by step, until one is left.

    On the CPU this is SciPy's linkage for each image; on a GPU all images are merged in parallel.

    Args:
        cosines: (B, P, P) float32, cosine of each pair of patches.
        linkage: "average" or "complete" with the cosine distance, or "ward" with the Euclidean
            distance, as in scikit-learn and SciPy.
    """
    if cosines.device.type != "cpu" or cosines.shape[1] < 2:
        return mutual_dendrogram(cosines, linkage)
    batch, count, _ = cosines.shape
    merges = np.empty((batch, count - 1, 4))
    for row, image_cosines in enumerate(cosines.numpy()):
        distance = np.subtract(1.0, squareform(image_cosines, checks=False), dtype=np.float64)
        if linkage == "ward":
            distance = np.sqrt(np.maximum(2 * distance, 0))
        merges[row] = scipy.cluster.hierarchy.linkage(distance, linkage)
    return _from_merges(torch.from_numpy(merges))


def _from_merges(merges: Tensor) -> Dendrogram:
    """Convert SciPy's (B, P - 1, 4) merges, two nodes and a height; nodes below P are patches."""
    batch, steps, _ = merges.shape
    count = steps + 1
    kept, absorbed = merges[:, :, :2].long().unbind(2)
    # A merged node gets the id of its first child, recursively down to a patch.
    patches = torch.arange(count).expand(batch, -1)
    ids = torch.cat([patches, kept], dim=1)
    for _ in range(steps.bit_length()):
        ids = ids.gather(1, ids)
    absorbed = ids.gather(1, absorbed)
    parent = patches.scatter(1, absorbed, ids.gather(1, kept))
    height = torch.full((batch, count), torch.inf, dtype=merges.dtype)
    height.scatter_(1, absorbed, merges[:, :, 2])
    return Dendrogram(parent, height)

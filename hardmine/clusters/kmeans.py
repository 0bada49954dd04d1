"""Spherical k-means over an image's cosines, a batch of images at a time."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_MAX_ROUNDS = 100


def kmeans_labels(cosines: Tensor, k: int, *, seed: int = 0) -> Tensor:
    """Part each image's patches into at most k clusters of like direction.

    Greedy k-means++ seeding, then Lloyd's rounds until no patch moves. Everything is a function
    of the Gram matrix, and its entries are rounded to a grid so coarse that every sum of them is
    exact in float32: the order of summation, hence batch and position, cannot change a label.

    Args:
        cosines: (B, P, P) float32 cosine of each pair of patches.
        k: Clusters an image; an image with fewer distinct patches gets as many as those.
        seed: Of the seeding. Each image draws the same numbers.

    Returns:
        (B, P) int64 labels below k; a cluster that exists has a patch.
    """
    count = cosines.shape[1]
    k = min(k, count)
    unit = 2.0 ** math.floor(math.log2(2**24 / (2 * count)))
    grid = (cosines * unit).round_()
    grid.diagonal(dim1=1, dim2=2).fill_(unit)
    labels = _seed(grid, unit, k, seed)
    for _ in range(_MAX_ROUNDS):
        members = torch.nn.functional.one_hot(labels, k).to(grid.dtype)  # (B, P, k)
        sums = grid @ members
        squared = (sums * members).sum(1, dtype=torch.float64)
        scores = torch.where(
            squared[:, None] > 0, sums * squared.rsqrt().to(grid.dtype)[:, None], -torch.inf
        )
        own = scores.gather(2, labels[..., None])[..., 0]
        best, nearest = scores.max(2)
        moved = torch.where(best > own, nearest, labels)
        if torch.equal(moved, labels):
            break
        labels = moved
    return labels


def _seed(grid: Tensor, unit: float, k: int, seed: int) -> Tensor:
    """Greedy k-means++: of a few draws by distance, keep the one that lowers the total most."""
    batch, count, _ = grid.shape
    trials = 2 + int(math.log(k))
    draws = torch.rand(k, trials, generator=torch.Generator().manual_seed(seed))
    draws = draws.to(grid.device)
    rows = torch.arange(batch, device=grid.device)
    first = int(draws[0, 0] * count)
    distance = (unit - grid[:, first]).clamp_(min=0)  # (B, P), to the nearest seed so far
    labels = torch.zeros(batch, count, dtype=torch.int64, device=grid.device)
    for cluster in range(1, k):
        reach = distance.cumsum(1)
        total = reach[:, -1:]
        target = torch.minimum((draws[cluster] * total).floor(), total - 1)
        drawn = torch.searchsorted(reach, target, right=True).clamp_(max=count - 1)
        after = torch.minimum(distance[:, None], (unit - grid[rows[:, None], drawn]).clamp_(min=0))
        chosen = after.sum(2).argmin(1)
        nearer = after[rows, chosen]
        labels = torch.where(nearer < distance, cluster, labels)
        distance = nearer
    return labels

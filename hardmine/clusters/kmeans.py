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
    clusters = torch.arange(k, device=grid.device)[:, None]
    rows = torch.arange(len(labels), device=grid.device)  # images that still change
    for _ in range(_MAX_ROUNDS):
        current = labels[rows]
        members = (current[:, None] == clusters).to(grid.dtype)  # (B, k, P)
        sums = members @ grid
        lengths = (sums * members).sum(2, dtype=torch.float64).clamp_(min=0).sqrt_()
        # A cluster without patches, or whose patches cancel, has no direction.
        scale = torch.where(lengths > 0, 1 / lengths, 0).to(grid.dtype)[..., None]
        scores = (sums * scale).masked_fill_(scale == 0, -torch.inf)
        own = scores.gather(1, current[:, None])[:, 0]
        best, nearest = scores.max(1)
        moved = best > own
        labels[rows] = torch.where(moved, nearest, current)
        changed = moved.any(1)
        left = int(changed.sum())
        if left == 0:
            break
        # Leaving settled images behind copies the rest: worth it when they are few.
        if 2 * left <= len(rows):
            rows, grid = rows[changed], grid[changed]
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

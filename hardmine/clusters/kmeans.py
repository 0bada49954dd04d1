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
    members = labels[:, None] == torch.arange(k, device=grid.device)[:, None]
    sums = members.to(grid.dtype) @ grid  # (B, k, P), kept up to date as patches move
    rows = torch.arange(len(labels), device=grid.device)  # images that still change
    for _ in range(_MAX_ROUNDS):
        current = labels[rows]
        own = sums.gather(1, current[:, None])[:, 0]
        lengths = own.new_zeros(len(rows), k, dtype=torch.float64)
        lengths = lengths.scatter_add_(1, current, own.double()).clamp_(min=0).sqrt_()
        # A cluster without patches, or whose patches cancel, has no direction.
        scale = torch.where(lengths > 0, 1 / lengths, 0).to(grid.dtype)[..., None]
        scores = (sums * scale).masked_fill_(scale == 0, -torch.inf)
        best, nearest = scores.max(1)
        moved = best > scores.gather(1, current[:, None])[:, 0]
        image, patch = moved.nonzero(as_tuple=True)
        if not len(image):
            break
        old, new = current[image, patch], nearest[image, patch]
        labels[rows[image], patch] = new
        flat, similar = sums.view(-1, sums.shape[2]), grid[rows[image], patch]
        flat.index_add_(0, image * k + old, similar, alpha=-1)
        flat.index_add_(0, image * k + new, similar)
        changed = moved.any(1)
        rows, sums = rows[changed], sums[changed]
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

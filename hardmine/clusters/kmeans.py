"""Spherical k-means over an image's cosines, a batch of images at a time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hardmine.clusters.gram import grid_unit

_MAX_ROUNDS = 100
_SETTLED = 0.01  # a share of an image's patches


@torch.inference_mode()  # a tenth less time than no_grad
def kmeans_labels(grid: Tensor, k: int, *, seed: int = 0) -> Tensor:
    """Part each image's patches into at most k clusters of like direction.

    Greedy k-means++ seeding, then Lloyd's rounds until at most one in a hundred of an image's
    patches would move. Everything is a function of the cosines, and every sum of them is exact
    in float32: the order of summation, hence batch and position, cannot change a label.

    Args:
        grid: (B, P, P) cosine of each pair of patches, as ``cosine_grid`` gives them; a patch's
            with itself becomes 1 there, whatever its length.
        k: Clusters an image; an image with fewer distinct patches gets as many as those.
        seed: Of the seeding. Each image draws the same numbers.

    Returns:
        (B, P) int64 labels below k; a cluster that exists has a patch.
    """
    batch, count, _ = grid.shape
    k = min(k, count)
    grid.diagonal(dim1=1, dim2=2).fill_(grid_unit(count))
    labels = _seed(grid, k, seed)
    similar = grid.view(-1, count)
    rows = torch.arange(batch, device=grid.device)  # images that may still change
    current = labels.clone()  # theirs
    names = (rows[:, None] * k + labels).flatten()
    # Of each cluster, kept up to date as patches move.
    sums = _sums(similar, names, batch * k).view(batch, k, count)
    for _ in range(_MAX_ROUNDS):
        own = sums.gather(1, current[:, None])[:, 0]
        lengths = own.new_zeros(len(rows), k, dtype=torch.float64)
        lengths.scatter_add_(1, current, own.double())  # squared, so whole numbers
        # The least stands in for clusters without patches or whose patches cancel: their sums
        # are next to nothing, and so are their scores.
        scale = lengths.clamp_(min=1).rsqrt_().to(grid.dtype)
        scores = sums * scale[..., None]
        moved = scores.amax(1) > scores.gather(1, current[:, None])[:, 0]
        unsettled = moved.sum(1) > _SETTLED * count
        left = int(unsettled.sum())
        if not left:
            break
        if 2 * left <= len(rows):
            labels[rows] = current
            rows, current, moved = rows[unsettled], current[unsettled], moved[unsettled]
            sums, scores = sums[unsettled], scores[unsettled]
        else:
            moved &= unsettled[:, None]
        image, patch = moved.nonzero(as_tuple=True)
        old, new = current[image, patch], scores[image, :, patch].argmax(1)
        current[image, patch] = new
        moving = similar.index_select(0, rows[image] * count + patch)
        flat = sums.view(-1, count)
        flat.index_add_(0, image * k + old, moving, alpha=-1)
        flat.index_add_(0, image * k + new, moving)
    labels[rows] = current
    return labels


def _seed(grid: Tensor, k: int, seed: int) -> Tensor:
    """Greedy k-means++: of a few draws by distance, keep the one that lowers the total most."""
    batch, count, _ = grid.shape
    unit = grid_unit(count)
    trials = 2 + int(math.log(k))
    draws = torch.rand(k, trials, generator=torch.Generator().manual_seed(seed))
    draws = draws.to(grid.device)
    similar = grid.view(-1, count)
    images = torch.arange(batch, device=grid.device)
    first_rows, first_trials = images[:, None] * count, images * trials
    first = int(draws[0, 0] * count)
    nearest = grid[:, first].clamp(max=unit)  # (B, P), cosine with the nearest seed so far
    labels = torch.zeros(batch, count, dtype=torch.int64, device=grid.device)
    for cluster, shares in enumerate(draws[1:].unbind(), start=1):
        reach = torch.sub(unit, nearest).cumsum(1)
        # Beyond the last patch where all distances are 0, and where a share rounds to 1.
        drawn = torch.searchsorted(reach, shares * reach[:, -1:], right=True)
        rows = drawn.clamp_(max=count - 1).add_(first_rows)
        after = similar.index_select(0, rows.view(-1)).view(batch, trials, count)
        torch.maximum(after, nearest[:, None], out=after)
        best = after.sum(2).argmax(1).add_(first_trials)
        nearer = after.view(-1, count).index_select(0, best).clamp_(max=unit)
        labels.masked_fill_(nearer > nearest, cluster)
        nearest = nearer
    return labels


def _sums(rows: Tensor, names: Tensor, count: int) -> Tensor:
    """Sum the rows of whole numbers of each name below ``count``, in any order."""
    sizes = torch.bincount(names, minlength=count)
    return F.embedding_bag(names.argsort(), rows, sizes.cumsum(0) - sizes, mode="sum")

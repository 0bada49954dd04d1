"""Spherical k-means on the cosines of each image's patches, for a batch of images."""

from __future__ import annotations

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from hardmine.clusters.gram import grid_unit

_MAX_ITERATIONS = 100
_TOLERANCE = 0.01  # stop when at most this share of an image's patches would move
# Iterations after which a GPU tells the host whether to stop: to ask takes longer than to iterate.
_ASKED_AFTER = (16, 48)


@torch.inference_mode()  # a tenth less time than no_grad
def kmeans_labels(grid: Tensor, k: int, *, seed: int = 0) -> Tensor:
    """Partition each image's patches into at most k clusters of similar direction.

    Greedy k-means++ initialisation, then Lloyd iterations until at most 1 % of an image's patches
    would move. Only cosines are used, and all their sums are exact in float32, so the order of
    summation, and thus the batch and the position in it, cannot change a label.

    Args:
        grid: (B, P, P) cosines from ``cosine_grid``; modified: the diagonal is set to cosine 1.
        k: Number of clusters; an image with fewer distinct patches gets fewer.
        seed: Seed of the initialisation; all images use the same random numbers.

    Returns:
        (B, P) int64 labels below k; empty clusters have no label.
    """
    batch, count, _ = grid.shape
    k = min(k, count)
    grid.diagonal(dim1=1, dim2=2).fill_(grid_unit(count))
    labels = _initial_labels(grid, k, seed)
    if grid.device.type != "cpu":
        return _settle_all(grid, labels, k)
    grid_rows = grid.view(-1, count)
    rows = torch.arange(batch, device=grid.device)  # images that may still change
    current = labels.clone()  # labels of these images
    clusters = (rows[:, None] * k + labels).flatten()
    # Sum of each cluster's rows, updated as patches move.
    sums = _cluster_sums(grid_rows, clusters, batch * k).view(batch, k, count)
    for _ in range(_MAX_ITERATIONS):
        own = sums.gather(1, current[:, None])[:, 0]
        lengths = own.new_zeros(len(rows), k, dtype=torch.float64)
        lengths.scatter_add_(1, current, own.double())  # squared lengths, whole numbers
        # The minimum of 1 is for clusters that are empty or whose patches cancel; their sums are
        # about 0, and so are their scores.
        scale = lengths.clamp_(min=1).rsqrt_().to(grid.dtype)
        scores = sums * scale[..., None]
        moved = scores.amax(1) > scores.gather(1, current[:, None])[:, 0]
        unsettled = moved.sum(1) > _TOLERANCE * count
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
        moving = grid_rows.index_select(0, rows[image] * count + patch)
        flat = sums.view(-1, count)
        flat.index_add_(0, image * k + old, moving, alpha=-1)
        flat.index_add_(0, image * k + new, moving)
    labels[rows] = current
    return labels


def _settle_all(grid: Tensor, labels: Tensor, k: int) -> Tensor:
    """The Lloyd iterations of all images at once, for a GPU; an image that settled stays."""
    batch, count, _ = grid.shape
    for iteration in range(_MAX_ITERATIONS):
        sums = grid.new_zeros(batch, k, count)
        sums.scatter_add_(1, labels[..., None].expand(-1, -1, count), grid)
        own = sums.gather(1, labels[:, None])[:, 0]
        lengths = own.new_zeros(batch, k, dtype=torch.float64)
        lengths.scatter_add_(1, labels, own.double())
        scores = sums * lengths.clamp_(min=1).rsqrt_().to(grid.dtype)[..., None]
        moved = scores.amax(1) > scores.gather(1, labels[:, None])[:, 0]
        unsettled = moved.sum(1, keepdim=True) > _TOLERANCE * count
        if iteration in _ASKED_AFTER and not bool(unsettled.any()):
            break
        labels = torch.where(moved & unsettled, scores.argmax(1), labels)
    return labels


@functools.lru_cache(maxsize=16)
def _draws(k: int, trials: int, seed: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Random numbers, (k, trials): the first on the CPU, all on a device, sent once."""
    draws = torch.rand(k, trials, generator=torch.Generator().manual_seed(seed))
    return draws[0, 0], draws.to(device)


def _initial_labels(grid: Tensor, k: int, seed: int) -> Tensor:
    """Greedy k-means++: of a few random candidates, keep the one that reduces the cost most."""
    batch, count, _ = grid.shape
    unit = grid_unit(count)
    trials = 2 + int(math.log(k))
    share, draws = _draws(k, trials, seed, grid.device)
    grid_rows = grid.view(-1, count)
    images = torch.arange(batch, device=grid.device)
    first_rows, first_trials = images[:, None] * count, images * trials
    first = int(share * count)
    nearest = grid[:, first].clamp(max=unit)  # (B, P), cosine with the nearest center so far
    labels = torch.zeros(batch, count, dtype=torch.int64, device=grid.device)
    for cluster, shares in enumerate(draws[1:].unbind(), start=1):
        cumulative = torch.sub(unit, nearest).cumsum(1)
        # Past the last patch if all distances are 0 or a share rounds to 1; clamped below.
        drawn = torch.searchsorted(cumulative, shares * cumulative[:, -1:], right=True)
        rows = drawn.clamp_(max=count - 1).add_(first_rows)
        after = grid_rows.index_select(0, rows.view(-1)).view(batch, trials, count)
        torch.maximum(after, nearest[:, None], out=after)
        best = after.sum(2).argmax(1).add_(first_trials)
        nearer = after.view(-1, count).index_select(0, best).clamp_(max=unit)
        labels.masked_fill_(nearer > nearest, cluster)
        nearest = nearer
    return labels


def _cluster_sums(rows: Tensor, clusters: Tensor, count: int) -> Tensor:
    """Sum the rows of each cluster; exact, because the rows are whole numbers."""
    sizes = torch.bincount(clusters, minlength=count)
    return F.embedding_bag(clusters.argsort(), rows, sizes.cumsum(0) - sizes, mode="sum")

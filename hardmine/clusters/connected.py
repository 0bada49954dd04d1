"""Agglomerative clustering in which only neighbours on the patch grid may merge."""

from __future__ import annotations

import torch
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram


def connected_dendrogram(
    cosines: Tensor, height: int, width: int, linkage: str = "average"
) -> Dendrogram:
    """Merge the nearest pair of touching clusters, step by step, until one is left.

    Patches touch above, below, left and right. Distances between clusters follow scikit-learn's
    convention, so that its partition is ours: with average and complete linkage a distance
    comes from the touching parts alone, and a part that does not touch has no say; with Ward it
    is that of the whole clusters. A tree of touching clusters may merge lower after higher; it
    is cut in the order of merging.

    Args:
        cosines: (B, P, P) float32 cosine of each pair of patches, P = height · width.
        height: Rows of the grid.
        width: Columns of the grid.
        linkage: "average", "complete" or "ward", as in ``dendrogram``.
    """
    batch, count, _ = cosines.shape
    device = cosines.device
    touching = _grid_neighbours(height, width, device).expand(batch, -1, -1).clone()
    full = (1 - cosines) * (2 if linkage == "ward" else 1)
    distance = torch.where(touching, full, torch.inf)
    # A cluster's distance to its nearest, or less: made exact only when it is the least of all.
    bound = distance.amin(2)
    sizes = torch.ones(batch, count, device=device)
    parent = torch.zeros(batch, count, dtype=torch.int64, device=device)
    heights = torch.full((batch, count), torch.inf, device=device)
    order = heights.clone()
    images = (bound < torch.inf).any(1).nonzero()[:, 0]
    step = 0
    while images.numel():
        low, row = bound[images].min(1)
        near, column = distance[images, row].min(1)
        bound[images, row] = near
        known = near <= low
        image, first, second = images[known], row[known], column[known]
        first, second = torch.minimum(first, second), torch.maximum(first, second)
        near = near[known]
        parent[image, second] = first
        heights[image, second] = near
        order[image, second] = step
        step += 1

        one, other = distance[image, first], distance[image, second]
        one_size, other_size = sizes[image, first][:, None], sizes[image, second][:, None]
        if linkage == "ward":
            third = sizes[image]
            united = full[image, first] * (one_size + third)
            united += full[image, second] * (other_size + third)
            united = (united - near[:, None] * third) / (one_size + other_size + third)
            full[image, first] = united
            full[image, :, first] = united
            united = torch.where(torch.minimum(one, other) < torch.inf, united, torch.inf)
        else:
            both = torch.maximum(one, other)
            if linkage == "average":
                both = torch.where(
                    both < torch.inf,
                    (one * one_size + other * other_size) / (one_size + other_size),
                    both,
                )
            united = torch.where(both < torch.inf, both, torch.minimum(one, other))
        united.scatter_(1, torch.stack([first, second], 1), torch.inf)
        distance[image, first] = united
        distance[image, :, first] = united
        distance[image, second] = torch.inf
        distance[image, :, second] = torch.inf
        bound[image] = torch.minimum(bound[image], united)
        bound[image, first] = united.amin(1)
        bound[image, second] = torch.inf
        sizes[image, first] += sizes[image, second]
        images = images[(bound[images] < torch.inf).any(1)]
    return Dendrogram(parent, heights.sqrt() if linkage == "ward" else heights, order)


def _grid_neighbours(height: int, width: int, device: torch.device) -> Tensor:
    """(P, P) bool: which patches share an edge."""
    places = torch.arange(height * width, device=device)
    rows, columns = places // width, places % width
    return ((rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()) == 1

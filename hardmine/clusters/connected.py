"""Agglomerative clustering in which only neighbours on the patch grid can merge."""

from __future__ import annotations

import torch
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram


def connected_dendrogram(
    cosines: Tensor, height: int, width: int, linkage: str = "average"
) -> Dendrogram:
    """Merge the nearest pair of adjacent clusters, step by step, until one is left.

    Patches are adjacent to those above, below, left and right. Distances between clusters follow
    scikit-learn's convention and give the same partitions: with average and complete linkage only
    the adjacent parts of two clusters count, with Ward the whole clusters. Heights need not
    increase in such a tree, so it is cut in the order of merging.

    Args:
        cosines: (B, P, P) float32, cosine of each pair of patches, P = height · width.
        height: Rows of the grid.
        width: Columns of the grid.
        linkage: "average", "complete" or "ward", as in ``dendrogram``.
    """
    batch, count, _ = cosines.shape
    device = cosines.device
    adjacent = _grid_neighbours(height, width, device).expand(batch, -1, -1).clone()
    full = (1 - cosines) * (2 if linkage == "ward" else 1)
    distance = torch.where(adjacent, full, torch.inf)
    # Lower bound on the distance to a cluster's nearest; made exact only when it is the minimum.
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
        exact = near <= low
        image, first, second = images[exact], row[exact], column[exact]
        first, second = torch.minimum(first, second), torch.maximum(first, second)
        near = near[exact]
        parent[image, second] = first
        heights[image, second] = near
        order[image, second] = step
        step += 1

        from_first, from_second = distance[image, first], distance[image, second]
        first_size, second_size = sizes[image, first][:, None], sizes[image, second][:, None]
        if linkage == "ward":
            third = sizes[image]
            merged = full[image, first] * (first_size + third)
            merged += full[image, second] * (second_size + third)
            merged = (merged - near[:, None] * third) / (first_size + second_size + third)
            full[image, first] = merged
            full[image, :, first] = merged
            merged = torch.where(
                torch.minimum(from_first, from_second) < torch.inf, merged, torch.inf
            )
        else:
            both = torch.maximum(from_first, from_second)
            if linkage == "average":
                both = torch.where(
                    both < torch.inf,
                    (from_first * first_size + from_second * second_size)
                    / (first_size + second_size),
                    both,
                )
            merged = torch.where(both < torch.inf, both, torch.minimum(from_first, from_second))
        merged.scatter_(1, torch.stack([first, second], 1), torch.inf)
        distance[image, first] = merged
        distance[image, :, first] = merged
        distance[image, second] = torch.inf
        distance[image, :, second] = torch.inf
        bound[image] = torch.minimum(bound[image], merged)
        bound[image, first] = merged.amin(1)
        bound[image, second] = torch.inf
        sizes[image, first] += sizes[image, second]
        images = images[(bound[images] < torch.inf).any(1)]
    return Dendrogram(parent, heights.sqrt() if linkage == "ward" else heights, order)


def _grid_neighbours(height: int, width: int, device: torch.device) -> Tensor:
    """(P, P) bool: which patches share an edge."""
    patches = torch.arange(height * width, device=device)
    rows, columns = patches // width, patches % width
    return ((rows[:, None] - rows).abs() + (columns[:, None] - columns).abs()) == 1

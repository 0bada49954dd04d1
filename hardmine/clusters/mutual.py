"""Agglomerative clustering for a GPU: in all images at once, mutual nearest neighbours merge."""

from __future__ import annotations

import torch
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram


def mutual_dendrogram(cosines: Tensor, linkage: str = "average") -> Dendrogram:
    """Merge each image's patches until one cluster is left.

    In each round every pair of clusters that are each other's nearest merges, in all images at
    once. For these linkages a merged cluster is never nearer to a third than the nearer of its
    parts was, so such a pair would merge with each other in any order, and the tree is the one
    that merging the globally nearest pair step by step gives.

    Args:
        cosines: (B, P, P) float32 cosine of each pair of patches.
        linkage: As in ``hardmine.clusters.agglomerative.dendrogram``.
    """
    batch, count, _ = cosines.shape
    device = cosines.device
    distance = 1 - cosines
    if linkage == "ward":
        distance *= 2  # squared Euclidean between unit vectors
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    parent = torch.zeros(batch, count, dtype=torch.int64, device=device)
    height = torch.full((batch, count), torch.inf, device=device)
    sizes = torch.ones(batch, count, device=device)
    names = torch.arange(count, device=device).expand(batch, -1)
    left = count
    while left > 1:
        near, partner = distance.min(2)
        places = torch.arange(left, device=device)
        mutual = (partner.gather(1, partner) == places) & (near < torch.inf)
        absorbed = mutual & (partner < places)
        image, loser = absorbed.nonzero(as_tuple=True)
        winner = partner[image, loser]
        parent[image, names[image, loser]] = names[image, winner]
        height[image, names[image, loser]] = near[image, loser]

        alive = (sizes > 0) & ~absorbed
        left = int(alive.sum(1).max())
        kept = (~alive).to(torch.uint8).argsort(dim=1, stable=True)[:, :left]
        other = torch.where(mutual, partner, places).gather(1, kept)
        pair_height = near.gather(1, kept)
        distance = _join_rows(distance, kept, other, sizes, sizes, pair_height, linkage)
        joined = sizes.gather(1, kept) + sizes.gather(1, other) * (other != kept)
        # Symmetric: joining the rows of the transpose joins the columns.
        distance = _join_rows(
            distance.mT.contiguous(), kept, other, sizes, joined, pair_height, linkage
        )
        # Rounding differs by the order of the two joins; without symmetry no pair may be mutual.
        distance = torch.minimum(distance, distance.mT)
        distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        # Images with fewer clusters left than the largest are filled up with dead ones.
        dead = ~alive.gather(1, kept)
        distance.masked_fill_(dead[:, :, None] | dead[:, None], torch.inf)
        sizes = joined.masked_fill_(dead, 0)
        names = names.gather(1, kept)
    height = height.sqrt() if linkage == "ward" else height
    return Dendrogram(parent, height, order=height)


def _join_rows(
    distance: Tensor,
    kept: Tensor,
    other: Tensor,
    sizes: Tensor,
    column_sizes: Tensor,
    pair_height: Tensor,
    linkage: str,
) -> Tensor:
    """Distances from each pair's union to every column, by Lance and Williams' formulas."""
    columns = distance.shape[2]
    first = distance.gather(1, kept[..., None].expand(-1, -1, columns))
    second = distance.gather(1, other[..., None].expand(-1, -1, columns))
    if linkage == "complete":
        return torch.maximum(first, second)
    first_size = sizes.gather(1, kept)[..., None]
    second_size = sizes.gather(1, other)[..., None]
    if linkage == "average":
        united = (first * first_size + second * second_size) / (first_size + second_size)
    else:
        third = column_sizes[:, None]
        united = (
            first * (first_size + third)
            + second * (second_size + third)
            - pair_height[..., None] * third
        ) / (first_size + second_size + third)
    return torch.where((other == kept)[..., None], first, united)

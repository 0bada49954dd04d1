"""Agglomerative clustering for GPUs: merges all mutual nearest neighbours in parallel."""

from __future__ import annotations

import torch
from torch import Tensor

from hardmine.clusters.dendrogram import Dendrogram

# Rounds after which the host asks how many clusters are left.
_ROUNDS = 8


def mutual_dendrogram(cosines: Tensor, linkage: str = "average") -> Dendrogram:
    """Merge each image's patches until one cluster is left.

    Each round merges every pair of clusters that are each other's nearest, in all images in
    parallel. With these linkages a merged cluster is never nearer to a third cluster than the
    nearer of its parts, so such pairs merge in any order, and the tree equals that of merging the
    globally nearest pair step by step.

    Args:
        cosines: (B, P, P) float32, cosine of each pair of patches.
        linkage: As in ``hardmine.clusters.agglomerative.dendrogram``.
    """
    batch, count, _ = cosines.shape
    device = cosines.device
    distance = 1 - cosines
    if linkage == "ward":
        distance *= 2  # squared Euclidean between unit vectors
    distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    # The last column takes what is written for clusters that are not absorbed.
    parent = torch.zeros(batch, count + 1, dtype=torch.int64, device=device)
    height = torch.full((batch, count + 1), torch.inf, device=device)
    sizes = torch.ones(batch, count, device=device)
    ids = torch.arange(count, device=device).expand(batch, -1)
    left, rounds = count, 0
    while left > 1:
        near, partner = distance.min(2)
        positions = torch.arange(left, device=device)
        mutual = (partner.gather(1, partner) == positions) & (near < torch.inf)
        absorbed = mutual & (partner < positions)
        places = torch.where(absorbed, ids, count)
        parent.scatter_(1, places, ids.gather(1, partner))
        height.scatter_(1, places, near)

        alive = (sizes > 0) & ~absorbed
        rounds += 1
        if rounds % _ROUNDS == 0:
            left = int(alive.sum(1).max())
        kept = (~alive).to(torch.uint8).argsort(dim=1, stable=True)[:, :left]
        other = torch.where(mutual, partner, positions).gather(1, kept)
        pair_height = near.gather(1, kept)
        distance = _join_rows(distance, kept, other, sizes, sizes, pair_height, linkage)
        joined = sizes.gather(1, kept) + sizes.gather(1, other) * (other != kept)
        # Symmetric: joining the rows of the transpose joins the columns.
        distance = _join_rows(
            distance.mT.contiguous(), kept, other, sizes, joined, pair_height, linkage
        )
        # The two joins round differently. Restore symmetry, or there may be no mutual pair.
        distance = torch.minimum(distance, distance.mT)
        distance.diagonal(dim1=1, dim2=2).fill_(torch.inf)
        # Images with fewer clusters than the largest are padded.
        padding = ~alive.gather(1, kept)
        distance.masked_fill_(padding[:, :, None] | padding[:, None], torch.inf)
        sizes = joined.masked_fill_(padding, 0)
        ids = ids.gather(1, kept)
    parent, height = parent[:, :count], height[:, :count]
    height = height.sqrt() if linkage == "ward" else height
    return Dendrogram(parent, height)


def _join_rows(
    distance: Tensor,
    kept: Tensor,
    other: Tensor,
    sizes: Tensor,
    column_sizes: Tensor,
    pair_height: Tensor,
    linkage: str,
) -> Tensor:
    """Distances from each merged pair to every column, by the Lance-Williams formulas."""
    columns = distance.shape[2]
    first = distance.gather(1, kept[..., None].expand(-1, -1, columns))
    second = distance.gather(1, other[..., None].expand(-1, -1, columns))
    if linkage == "complete":
        return torch.maximum(first, second)
    first_size = sizes.gather(1, kept)[..., None]
    second_size = sizes.gather(1, other)[..., None]
    if linkage == "average":
        merged = (first * first_size + second * second_size) / (first_size + second_size)
    else:
        third = column_sizes[:, None]
        merged = (
            first * (first_size + third)
            + second * (second_size + third)
            - pair_height[..., None] * third
        ) / (first_size + second_size + third)
    return torch.where((other == kept)[..., None], first, merged)

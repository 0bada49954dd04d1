"""Computes regions (vectors, boxes, masses) from groups of patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hardmine.records import Regions


@dataclass(frozen=True)
class Groups:
    """G groups of patches of a batch, sorted by image; groups may overlap.

    Attributes:
        patches: (M,) int64, the members of all groups, group by group, as positions in the
            batch's B·P patches.
        starts: (G,) int64, position in ``patches`` of each group's first member.
        image_rows: (G,) int64, ascending, the image of each group.
        kept: (G,) bool, which groups become regions; the others may be empty. None for all.
    """

    patches: Tensor
    starts: Tensor
    image_rows: Tensor
    kept: Tensor | None = None


def in_reading_order(ids: Tensor) -> Tensor:
    """Number each image's clusters 0, 1, ... in the order of their first patches.

    Args:
        ids: (B, P) int64 in [0, P), any id for each cluster.
    """
    batch, count = ids.shape
    positions = torch.arange(count, device=ids.device).expand(batch, -1)
    first = torch.full_like(ids, count).scatter_reduce_(1, ids, positions, "amin")
    first = first.gather(1, ids)
    rank = (first == positions).cumsum(1) - 1  # valid at each cluster's first patch
    return rank.gather(1, first)


def groups_of(cuts: Sequence[Tensor], counts: Sequence[int] | None = None) -> Groups:
    """One group for each cluster of one or more partitions; duplicate clusters are dropped.

    Args:
        cuts: Partitions, (B, P) int64 each; labels of an image are 0, 1, ... without gaps.
        counts: Largest number of clusters in each; looked for if None.
    """
    batch, count = cuts[0].shape
    if counts is None:
        counts = [int(labels.max()) + 1 for labels in cuts]
    # Number the clusters of all partitions consecutively. Some numbers are unused in images with
    # fewer clusters.
    ids = torch.cat(
        [labels + sum(counts[:cut]) for cut, labels in enumerate(cuts)], dim=1
    )  # (B, cuts · P)
    sizes = ids.new_zeros(batch, sum(counts)).scatter_add_(1, ids, torch.ones_like(ids))
    members = ids.argsort(dim=1, stable=True)
    positions = torch.arange(batch, device=ids.device)[:, None] * count + members % count
    kept = sizes > 0
    if len(cuts) > 1:
        kept &= ~_duplicates(ids.view(batch, -1, count), sizes)
    flat = sizes.flatten()
    return Groups(
        patches=positions.flatten(),
        starts=flat.cumsum(0) - flat,
        image_rows=torch.arange(batch, device=ids.device)[:, None].expand_as(sizes).flatten(),
        kept=kept.flatten(),
    )


def _duplicates(ids: Tensor, sizes: Tensor) -> Tensor:
    """(B, C) bool: which clusters have the same patches as an earlier one.

    Args:
        ids: (B, cuts, P) int64 in [0, C).
        sizes: (B, C) number of patches of each cluster.
    """
    clusters = torch.arange(sizes.shape[1], device=ids.device)
    members = (ids[:, :, None] == clusters[:, None]).any(1).float()
    shared = members @ members.mT
    same = (shared == sizes[:, :, None]) & (shared == sizes[:, None])
    return same.tril(-1).any(2)


def regions_of(patches: Tensor, groups: Groups) -> Regions:
    """Compute the vector, box and mass of each group that is kept.

    The vector is the normalised mean of the members. If the mean is zero (opposite members cancel)
    it is the first nonzero member. If all members are zero it is zero and matches nothing.

    Args:
        patches: (B, H, W, D) float32.
        groups: Groups of these patches.
    """
    batch, height, width, dim = patches.shape
    flat = patches.reshape(batch * height * width, dim)
    # embedding_bag sums each group's members in order, independent of batch and threads.
    sums = F.embedding_bag(groups.patches, flat, groups.starts, mode="sum")
    total = groups.starts.new_full((1,), len(groups.patches))
    sizes = torch.diff(groups.starts, append=total)
    norms = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    cancelled = norms[:, 0] <= 1e-6 * sizes
    kept = torch.ones_like(cancelled) if groups.kept is None else groups.kept
    # The only time that the host waits for a GPU here.
    some, bad = torch.stack([kept.sum(), (cancelled & kept).sum()]).cpu().tolist()
    if bad:
        _replace_cancelled(sums, norms, flat, groups, (cancelled & kept).nonzero()[:, 0].cpu())
    positions = torch.arange(height * width, device=sums.device)
    corners = torch.stack([positions % width, positions // width])  # x, y of each patch
    corners = corners.repeat(1, batch).index_select(1, groups.patches)
    region = torch.repeat_interleave(
        torch.arange(len(sizes), device=sums.device), sizes, output_size=len(groups.patches)
    )
    region = region.expand(2, -1)
    low = corners.new_full((2, len(sizes)), max(height, width))
    low.scatter_reduce_(1, region, corners, "amin")
    high = corners.new_zeros(2, len(sizes)).scatter_reduce_(1, region, corners, "amax") + 1
    grid = torch.stack([corners.new_full((1,), width), corners.new_full((1,), height)])
    columns: tuple[Tensor, ...] = (
        sums.div_(norms.clamp_(min=1e-12)),
        groups.image_rows,
        torch.cat([low / grid, high / grid]).T.contiguous(),
        sizes.to(torch.float32) / (height * width),
    )
    if some < len(sizes):
        chosen = kept.to(torch.uint8).argsort(descending=True, stable=True)[:some]
        columns = tuple(column.index_select(0, chosen) for column in columns)
    return Regions(*columns)


def _replace_cancelled(
    sums: Tensor, norms: Tensor, patches: Tensor, groups: Groups, regions: Tensor
) -> None:
    """Put the first nonzero member of some groups in the place of their sum."""
    starts = torch.cat([groups.starts.cpu(), torch.tensor([len(groups.patches)])]).tolist()
    for region in regions.tolist():
        members = patches[groups.patches[starts[region] : starts[region + 1]]]
        lengths = torch.linalg.vector_norm(members, dim=1)
        first = int((lengths > 0).to(torch.uint8).argmax())
        sums[region], norms[region] = members[first], lengths[first]


def add_context(regions: Regions, whole: Tensor, share: float) -> Regions:
    """Add ``share`` times the whole-image vector to each region's vector, and normalise."""
    vectors = (share * F.normalize(whole, dim=1)).index_select(0, regions.image_rows)
    vectors += regions.vectors
    return replace(regions, vectors=F.normalize(vectors, dim=1, out=vectors))


def whole_regions(whole: Tensor) -> Regions:
    """One region for each image: its whole-image vector, (B, D), with mass 1 and the full box."""
    batch = len(whole)
    boxes = whole.new_ones(batch, 4)
    boxes[:, :2] = 0
    return Regions(
        vectors=F.normalize(whole, dim=1),
        image_rows=torch.arange(batch, device=whole.device),
        boxes=boxes,
        mass=whole.new_ones(batch),
    )


def with_whole(regions: Regions, whole: Tensor) -> Regions:
    """Append the whole-image vector to each image's regions."""
    added = whole_regions(whole)
    rows = torch.cat([regions.image_rows, added.image_rows])
    order = rows.argsort(stable=True)
    return Regions(
        vectors=torch.cat([regions.vectors, added.vectors]).index_select(0, order),
        image_rows=rows[order],
        boxes=torch.cat([regions.boxes, added.boxes])[order],
        mass=torch.cat([regions.mass, added.mass])[order],
        labels=regions.labels,
    )

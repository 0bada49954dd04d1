"""From groups of patches to regions: vectors, boxes and masses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from hardmine.records import Regions


@dataclass(frozen=True)
class Groups:
    """R groups of patches of a batch, image after image; groups may overlap.

    Attributes:
        patches: (M,) int64 members of all groups, one group after the other, as positions in the
            batch's B·P patches.
        starts: (R,) int64, where each group's members begin.
        image_rows: (R,) int64, ascending.
    """

    patches: Tensor
    starts: Tensor
    image_rows: Tensor


def in_reading_order(names: Tensor) -> Tensor:
    """Number each image's clusters 0, 1, ... in the order in which their first patches come.

    Args:
        names: (B, P) int64 in [0, P), any name a cluster.
    """
    batch, count = names.shape
    places = torch.arange(count, device=names.device).expand(batch, -1)
    first = torch.full_like(names, count).scatter_reduce_(1, names, places, "amin")
    first = first.gather(1, names)
    rank = (first == places).cumsum(1) - 1  # at a cluster's first patch
    return rank.gather(1, first)


def groups_of(cuts: Sequence[Tensor]) -> Groups:
    """One group a cluster of one partition or several; the same cluster in two counts once.

    Args:
        cuts: Partitions (B, P) int64, for each image 0, 1, ... without gaps.
    """
    batch, count = cuts[0].shape
    counts = [int(labels.max()) + 1 for labels in cuts]
    # All clusters of an image one after another; an image may have fewer than the batch's most.
    names = torch.cat(
        [labels + sum(counts[:cut]) for cut, labels in enumerate(cuts)], dim=1
    )  # (B, cuts · P)
    sizes = names.new_zeros(batch, sum(counts)).scatter_add_(1, names, torch.ones_like(names))
    members = names.argsort(dim=1, stable=True)
    places = torch.arange(batch, device=names.device)[:, None] * count + members % count
    kept = sizes > 0
    if len(cuts) > 1:
        kept &= ~_repeated(names.view(batch, -1, count), sizes)
        places = places[kept.gather(1, names.gather(1, members))]
    return Groups(
        patches=places.flatten(),
        starts=sizes[kept].cumsum(0) - sizes[kept],
        image_rows=kept.nonzero()[:, 0],
    )


def _repeated(names: Tensor, sizes: Tensor) -> Tensor:
    """(B, C) bool: which clusters hold just the patches of one before.

    Args:
        names: (B, cuts, P) int64 in [0, C).
        sizes: (B, C) patches of each.
    """
    clusters = torch.arange(sizes.shape[1], device=names.device)
    members = (names[:, :, None] == clusters[:, None]).any(1).float()
    shared = members @ members.mT
    same = (shared == sizes[:, :, None]) & (shared == sizes[:, None])
    return same.tril(-1).any(2)


def regions_of(patches: Tensor, groups: Groups) -> Regions:
    """Mean, box and mass of each group.

    The vector is the mean of the members, renormalised. Where the mean is zero (opposite
    members cancel) it is the first member that is not; where all are zero it stays zero and
    matches nothing.

    Args:
        patches: (B, H, W, D) float32.
        groups: Of these patches.
    """
    batch, height, width, dim = patches.shape
    flat = patches.reshape(batch * height * width, dim)
    # Sums each group's members in order, so neither batch nor device threads change a bit.
    sums = F.embedding_bag(groups.patches, flat, groups.starts, mode="sum")
    sizes = torch.diff(groups.starts, append=groups.starts.new_tensor([len(groups.patches)]))
    norms = torch.linalg.vector_norm(sums, dim=1, keepdim=True)
    for region in (norms[:, 0] <= 1e-6 * sizes).nonzero()[:, 0].tolist():
        start = int(groups.starts[region])
        members = flat[groups.patches[start : start + int(sizes[region])]]
        lengths = torch.linalg.vector_norm(members, dim=1)
        first = int((lengths > 0).to(torch.uint8).argmax())
        sums[region], norms[region] = members[first], lengths[first]
    places = torch.arange(height * width, device=sums.device)
    corners = torch.stack([places % width, places // width])  # x, y of each patch
    corners = corners.repeat(1, batch).index_select(1, groups.patches)
    region = torch.repeat_interleave(torch.arange(len(sizes), device=sums.device), sizes)
    region = region.expand(2, -1)
    low = corners.new_full((2, len(sizes)), max(height, width))
    low.scatter_reduce_(1, region, corners, "amin")
    high = corners.new_zeros(2, len(sizes)).scatter_reduce_(1, region, corners, "amax") + 1
    grid = corners.new_tensor([[width], [height]])
    return Regions(
        vectors=sums.div_(norms.clamp_(min=1e-12)),
        image_rows=groups.image_rows,
        boxes=torch.cat([low / grid, high / grid]).T.contiguous(),
        mass=sizes.to(torch.float32) / (height * width),
    )


def in_context(regions: Regions, whole: Tensor, share: float) -> Regions:
    """Lean each region's vector towards its image's: add ``share`` times it, renormalise."""
    around = F.normalize(whole, dim=1)[regions.image_rows]
    return replace(regions, vectors=F.normalize(regions.vectors + share * around, dim=1))


def whole_regions(whole: Tensor) -> Regions:
    """One region an image: its whole-image vector, (B, D), mass 1 and the full box."""
    batch = len(whole)
    return Regions(
        vectors=F.normalize(whole, dim=1),
        image_rows=torch.arange(batch, device=whole.device),
        boxes=whole.new_tensor([0, 0, 1, 1]).repeat(batch, 1),
        mass=whole.new_ones(batch),
    )


def with_whole(regions: Regions, whole: Tensor) -> Regions:
    """Add each image's whole-image vector after its other regions."""
    added = whole_regions(whole)
    rows = torch.cat([regions.image_rows, added.image_rows])
    order = rows.argsort(stable=True)
    return Regions(
        vectors=torch.cat([regions.vectors, added.vectors])[order],
        image_rows=rows[order],
        boxes=torch.cat([regions.boxes, added.boxes])[order],
        mass=torch.cat([regions.mass, added.mass])[order],
        labels=regions.labels,
    )

"""Clusters the encoder's output for a batch into the regions that are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from hardmine.clusters import cluster
from hardmine.encoders.base import DenseFeatures
from hardmine.records import Regions


def regions_of_batch(
    features: DenseFeatures,
    clusters: str,
    *,
    seed: int,
    names: Sequence[str],
    proposals: Sequence[torch.Tensor] | None = None,
) -> Regions:
    """Cluster the patches of B images.

    Args:
        features: The encoder's output. If its patches have boxes of their own, as a detector's
            do, a region's box spans those instead of grid cells.
        clusters: The clustering spec.
        seed: Seed of the clustering.
        names: B image names, for error messages.
        proposals: B tensors (n, 4), for the spec ``"boxes"``.
    """
    regions = cluster(
        features.patches,
        clusters,
        whole=features.whole,
        seed=seed,
        labels=features.boxes is not None,
        boxes=proposals,
        names=names,
    )
    if features.boxes is None or regions.labels is None:
        return regions
    return replace(regions, boxes=_spans(regions, regions.labels, features.boxes))


def on_cpu(regions: Regions) -> Regions:
    """Copy regions to the CPU, all columns but the labels at once."""
    if regions.vectors.device.type == "cpu":
        return regions
    # float32 holds the number of an image in its batch exactly.
    columns = regions.vectors, regions.image_rows[:, None], regions.boxes, regions.mass[:, None]
    joined = torch.cat([column.float() for column in columns], dim=1).cpu()
    widths = [column.shape[1] for column in columns]
    vectors, rows, boxes, mass = (part.contiguous() for part in torch.split(joined, widths, 1))
    return Regions(vectors, rows[:, 0].long(), boxes, mass[:, 0])


def _spans(regions: Regions, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(R, 4) smallest box around the boxes of each region's patches."""
    flat = labels.flatten(1)
    starts = torch.searchsorted(
        regions.image_rows, torch.arange(len(flat), device=flat.device, dtype=torch.int64)
    )
    in_region = flat >= 0
    region = (flat + starts[:, None])[in_region][:, None].expand(-1, 2)
    corners = boxes.flatten(1, 2)[in_region].to(regions.boxes)
    spans = regions.boxes.clone()
    # Regions without patches of their own, such as the whole image, keep their boxes.
    low = spans[:, :2].scatter_reduce(0, region, corners[:, :2], "amin", include_self=False)
    high = spans[:, 2:].scatter_reduce(0, region, corners[:, 2:], "amax", include_self=False)
    return torch.cat([low, high], dim=1)

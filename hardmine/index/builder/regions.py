"""What the encoder says of a batch becomes the regions that are stored."""

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
        features: Of the images. Where it has boxes of its own (a detector's), a region's box
            spans those of its patches instead of their cells of the grid.
        clusters: The clustering spec.
        seed: Of the clustering.
        names: B names, for messages.
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


def _spans(regions: Regions, labels: torch.Tensor, boxes: torch.Tensor) -> torch.Tensor:
    """(R, 4) smallest boxes around the boxes of each region's patches."""
    flat = labels.flatten(1)
    starts = torch.searchsorted(
        regions.image_rows, torch.arange(len(flat), device=flat.device, dtype=torch.int64)
    )
    held = flat >= 0
    place = (flat + starts[:, None])[held][:, None].expand(-1, 2)
    corners = boxes.flatten(1, 2)[held].to(regions.boxes)
    spans = regions.boxes.clone()
    # Regions without patches of their own, as the whole image, keep their boxes.
    low = spans[:, :2].scatter_reduce(0, place, corners[:, :2], "amin", include_self=False)
    high = spans[:, 2:].scatter_reduce(0, place, corners[:, 2:], "amax", include_self=False)
    return torch.cat([low, high], dim=1)

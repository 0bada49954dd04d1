"""Spatial pyramid: fixed cells of 1×1, 2×2, ... grids instead of clusters."""

from __future__ import annotations

import torch

from hardmine.clusters.regions import Groups


def pyramid_groups(
    batch: int, height: int, width: int, levels: int, device: torch.device
) -> Groups:
    """Groups for the cells of the 1×1 to levels×levels grids: 1 + 4 + 9 + ... for each image.

    A patch on the edge of two cells belongs to both, as in adaptive average pooling. A grid finer
    than the patches repeats patches; it does not interpolate.
    """
    members = []
    positions = torch.arange(height * width, device=device).view(height, width)
    for level in range(1, levels + 1):
        for row in range(level):
            for column in range(level):
                top, left = row * height // level, column * width // level
                bottom = -(-(row + 1) * height // level)
                right = -(-(column + 1) * width // level)
                members.append(positions[top:bottom, left:right].flatten())
    sizes = torch.tensor([len(group) for group in members], device=device)
    offsets = torch.arange(batch, device=device)[:, None] * (height * width)
    ends = sizes.repeat(batch).cumsum(0)
    return Groups(
        patches=(torch.cat(members) + offsets).flatten(),
        starts=ends - sizes.repeat(batch),
        image_rows=torch.arange(batch, device=device).repeat_interleave(len(members)),
    )

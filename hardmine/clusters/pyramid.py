"""Fixed cells instead of clusters: the 1×1, 2×2, ... grids over an image."""

from __future__ import annotations

import torch

from hardmine.clusters.regions import Groups


def pyramid_groups(
    batch: int, height: int, width: int, levels: int, device: torch.device
) -> Groups:
    """Each cell of the 1×1 to levels×levels grids: 1 + 4 + 9 + ... groups an image.

    A patch that a cell's edge runs through belongs to the cells on both sides, as in adaptive
    average pooling. A grid finer than the patches repeats them rather than interpolates.
    """
    members = []
    places = torch.arange(height * width, device=device).view(height, width)
    for level in range(1, levels + 1):
        for row in range(level):
            for column in range(level):
                top, left = row * height // level, column * width // level
                bottom = -(-(row + 1) * height // level)
                right = -(-(column + 1) * width // level)
                members.append(places[top:bottom, left:right].flatten())
    sizes = torch.tensor([len(group) for group in members], device=device)
    offsets = torch.arange(batch, device=device)[:, None] * (height * width)
    ends = sizes.repeat(batch).cumsum(0)
    return Groups(
        patches=(torch.cat(members) + offsets).flatten(),
        starts=ends - sizes.repeat(batch),
        image_rows=torch.arange(batch, device=device).repeat_interleave(len(members)),
    )

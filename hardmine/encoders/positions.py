"""Resizes positional embeddings to another patch grid."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def resize_positions(
    positions: torch.Tensor, old: tuple[int, int], new: tuple[int, int]
) -> torch.Tensor:
    """Interpolate the positional embeddings of patches; the first token's row is unchanged.

    Bicubic with antialiasing in float32, the same as open_clip when it loads a checkpoint at
    another image size.

    Args:
        positions: (1 + H * W, D): the class (or mean) token's row, then the grid row by row.
        old: H and W of the trained grid.
        new: H and W of the new grid.
    """
    if old == new:
        return positions
    first, grid = positions[:1], positions[1:]
    image = grid.float().reshape(1, *old, -1).permute(0, 3, 1, 2)
    image = F.interpolate(image, size=new, mode="bicubic", antialias=True, align_corners=False)
    resized = image.permute(0, 2, 3, 1).reshape(new[0] * new[1], -1)
    return torch.cat([first, resized.to(positions.dtype)])

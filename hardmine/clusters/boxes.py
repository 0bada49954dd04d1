"""Regions from boxes that something else proposed: a detector, a proposal file, a person."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from hardmine.errors import InputError
from hardmine.records import Regions

# A box thinner than this share of a patch has no inside to sample; it is read as that thick.
_THINNEST = 0.1


def box_regions(
    patches: Tensor, boxes: Sequence[Tensor], *, names: Sequence[str] | None = None
) -> Regions:
    """RoI-align each box over its image's patches; the mean of the samples, renormalised.

    An image without boxes gets no region. Mass is the box's area, and does not sum to 1.

    Args:
        patches: (B, H, W, D) float32.
        boxes: B tensors (n, 4), xyxy as shares of the image's width and height; what lies outside
            the image is cut off.
        names: B names of the images, for messages.
    """
    batch, height, width, _ = patches.shape
    if len(boxes) != batch:
        raise InputError(f"boxes must be one tensor an image (expected {batch}, got {len(boxes)})")
    shares = []
    for row, given in enumerate(boxes):
        share = torch.as_tensor(given, dtype=torch.float32, device=patches.device).reshape(-1, 4)
        if not bool((share[:, :2] <= share[:, 2:]).all()):  # NaN fails it too
            name = f"image {row} of the batch" if names is None else names[row]
            raise InputError(
                f"boxes of {name} must be xyxy with x1 <= x2 and y1 <= y2, as shares of the "
                f"image's width and height; got {share.tolist()[:3]}"
            )
        shares.append(share.clamp(0, 1))
    together = torch.cat(shares) if shares else patches.new_zeros(0, 4)
    counts = torch.tensor([len(share) for share in shares], device=patches.device)
    rows = torch.arange(batch, device=patches.device).repeat_interleave(counts)
    pixels = together * patches.new_tensor([width, height, width, height])
    centre, half = (pixels[:, :2] + pixels[:, 2:]) / 2, (pixels[:, 2:] - pixels[:, :2]) / 2
    half = half.clamp(min=_THINNEST / 2)
    rois = torch.cat([rows[:, None].to(pixels), centre - half, centre + half], 1)
    pooled = roi_align(patches.permute(0, 3, 1, 2), rois, output_size=1, aligned=True)
    extent = together[:, 2:] - together[:, :2]
    return Regions(
        vectors=F.normalize(pooled.flatten(1), dim=1),
        image_rows=rows,
        boxes=together,
        mass=extent.prod(1),
    )

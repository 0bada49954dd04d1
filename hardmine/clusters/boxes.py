"""Regions from given boxes, e.g. of a detector, a proposal file or an annotator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from hardmine.errors import InputError
from hardmine.records import Regions

# Minimum side of a box, in patches: RoI-align needs some area to sample.
_MIN_SIDE = 0.1


def box_regions(
    patches: Tensor, boxes: Sequence[Tensor], *, names: Sequence[str] | None = None
) -> Regions:
    """Pool each box over its image's patches with RoI-align, and normalise the result.

    An image without boxes gets no region. A region's mass is the area of its box.

    Args:
        patches: (B, H, W, D) float32.
        boxes: B tensors (n, 4), xyxy as shares of the image's width and height; clipped to the
            image.
        names: B names of the images, for error messages.
    """
    batch, height, width, _ = patches.shape
    if len(boxes) != batch:
        raise InputError(
            f"boxes must have one tensor for each image (expected {batch}, got {len(boxes)})"
        )
    shares = []
    for row, given in enumerate(boxes):
        share = torch.as_tensor(given, dtype=torch.float32, device=patches.device).reshape(-1, 4)
        if not bool((share[:, :2] <= share[:, 2:]).all()):  # also false for NaN
            name = f"image {row} of the batch" if names is None else names[row]
            raise InputError(
                f"boxes of {name} must be xyxy with x1 <= x2 and y1 <= y2, as shares of the "
                f"image's width and height; got {share.tolist()[:3]}"
            )
        shares.append(share.clamp(0, 1))
    all_boxes = torch.cat(shares) if shares else patches.new_zeros(0, 4)
    counts = torch.tensor([len(share) for share in shares], device=patches.device)
    rows = torch.arange(batch, device=patches.device).repeat_interleave(counts)
    pixels = all_boxes * patches.new_tensor([width, height, width, height])
    center, half = (pixels[:, :2] + pixels[:, 2:]) / 2, (pixels[:, 2:] - pixels[:, :2]) / 2
    half = half.clamp(min=_MIN_SIDE / 2)
    rois = torch.cat([rows[:, None].to(pixels), center - half, center + half], 1)
    pooled = roi_align(patches.permute(0, 3, 1, 2), rois, output_size=1, aligned=True)
    extent = all_boxes[:, 2:] - all_boxes[:, :2]
    return Regions(
        vectors=F.normalize(pooled.flatten(1), dim=1),
        image_rows=rows,
        boxes=all_boxes,
        mass=extent.prod(1),
    )

"""A one-stage detector small enough to train from scratch on one CPU core within a minute.

The layout is that of FCOS without its towers: a residual backbone and two feature levels with
strides of 8 and 16 pixels. Each location of each level predicts a score for every class and the
distances to the four sides of a box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from hardmine.errors import InputError

STRIDES = (8, 16)
_COARSE_BOX_SHARE = 0.3  # of the image's side; longer boxes belong to the coarse level
_PIXEL_MEAN, _PIXEL_STD = 118.0, 60.0


class Outputs(NamedTuple):
    """Predictions at P locations of B images.

    Attributes:
        logits: (B, P, C) float32.
        boxes: (B, P, 4) float32 xyxy in pixels.
    """

    logits: torch.Tensor
    boxes: torch.Tensor


class LocationTargets(NamedTuple):
    """Training targets at P locations of B images.

    Attributes:
        class_rows: (B, P) int16, -1 for background.
        boxes: (B, P, 4) float32 xyxy in pixels; any value for background.
    """

    class_rows: torch.Tensor
    boxes: torch.Tensor


class SmallDetector(nn.Module):
    """Square images -> class scores and boxes at the locations of two grids.

    Args:
        num_classes: C.
        side: Side of the square images in pixels; a multiple of 16.
        width: Channels of the first stage. The later stages have two and four times as many.
    """

    locations: torch.Tensor
    strides: torch.Tensor

    def __init__(self, num_classes: int, *, side: int = 128, width: int = 32) -> None:
        super().__init__()
        if side % STRIDES[-1]:
            raise InputError(f"side must be a multiple of {STRIDES[-1]} pixels, got {side}")
        locations, strides = grid_locations(side)
        self.register_buffer("locations", locations, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU(), conv_block(width, width)
        )
        self.fine = nn.Sequential(conv_block(width, 2 * width, 2), _Residual(2 * width))
        self.coarse = nn.Sequential(
            conv_block(2 * width, 4 * width, 2), _Residual(4 * width), _Residual(4 * width)
        )
        self.lateral = nn.Conv2d(4 * width, 2 * width, 1)
        self.neck = nn.ModuleList(
            [conv_block(2 * width, 2 * width), conv_block(4 * width, 2 * width)]
        )
        self.classify = nn.Conv2d(2 * width, num_classes, 3, padding=1)
        self.regress = nn.Conv2d(2 * width, 4, 3, padding=1)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -4.0)  # low scores everywhere at the start

    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Detect on (B, 3, S, S) uint8 images, in the precision of the weights."""
        images = (pixels.float() - _PIXEL_MEAN) / _PIXEL_STD
        images = images.to(self.classify.weight.dtype, memory_format=torch.channels_last)
        fine = self.fine(self.stem(images))
        coarse = self.coarse(fine)
        lateral = functional.interpolate(self.lateral(coarse), scale_factor=2)
        inputs = fine + lateral, coarse
        levels = [neck(level) for neck, level in zip(self.neck, inputs, strict=True)]
        logits, distances = (
            torch.cat([head(level).flatten(2).transpose(1, 2) for level in levels], 1).float()
            for head in (self.classify, self.regress)
        )
        return Outputs(logits, decode_boxes(self.locations, self.strides, distances))


def assign_targets(boxes: torch.Tensor, class_rows: torch.Tensor, side: int) -> LocationTargets:
    """Assign the labelled boxes of one image to locations.

    A location gets a box if it lies inside the box, within a stride of its centre, on the level
    that fits the box's size. Among several boxes the smallest wins.

    Args:
        boxes: (M, 4) float32 xyxy in pixels.
        class_rows: (M,) int64.
        side: Side of the image in pixels.

    Returns:
        Targets of shape (P,) and (P, 4), or (1, 4) where there are no boxes.
    """
    locations, strides = grid_locations(side)
    if not len(boxes):
        background = torch.full((len(locations),), -1, dtype=torch.int16)
        return LocationTargets(background, locations.new_zeros(1, 4))
    low, high = boxes[:, :2], boxes[:, 2:]
    reach = torch.minimum(((high - low) / 2).clamp(min=4.0), strides[:, None, None])
    inside = ((locations[:, None] - (low + high) / 2).abs() <= reach).all(-1)
    large = (high - low).amax(1) >= _COARSE_BOX_SHARE * side
    candidate = inside & (large == (strides == STRIDES[-1])[:, None])
    areas = torch.where(candidate, (high - low).prod(1), torch.inf)
    smallest_area, smallest = areas.min(1)
    assigned = torch.where(smallest_area.isfinite(), class_rows[smallest], -1).to(torch.int16)
    return LocationTargets(assigned, boxes[smallest])


def detection_loss(outputs: Outputs, targets: LocationTargets) -> torch.Tensor:
    """Focal loss of the classes plus generalised IoU loss of the boxes, per foreground location."""
    foreground = targets.class_rows >= 0
    count = foreground.sum().clamp(min=1)
    one_hot = torch.zeros_like(outputs.logits)
    one_hot[foreground, targets.class_rows[foreground].long()] = 1
    class_loss = sigmoid_focal_loss(outputs.logits, one_hot, reduction="sum")
    box_loss = generalized_box_iou_loss(
        outputs.boxes[foreground], targets.boxes[foreground], reduction="sum"
    )
    loss: torch.Tensor = (class_loss + box_loss) / count
    return loss


def grid_locations(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of the cells of both grids, (P, 2) in pixels, and their strides, (P,)."""
    locations, strides = [], []
    for stride in STRIDES:
        centres = (torch.arange(side // stride) + 0.5) * stride
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        locations.append(torch.stack([columns.flatten(), rows.flatten()], 1))
        strides.append(torch.full((rows.numel(),), float(stride)))
    return torch.cat(locations), torch.cat(strides)


def decode_boxes(
    locations: torch.Tensor, strides: torch.Tensor, distances: torch.Tensor
) -> torch.Tensor:
    """Boxes around locations, from (B, P, 4) unbounded distances to left, top, right, bottom."""
    pixels = functional.softplus(distances) * (2 * strides[:, None])
    return torch.cat([locations - pixels[..., :2], locations + pixels[..., 2:]], -1)


def conv_block(channels_in: int, channels_out: int, stride: int = 1) -> nn.Sequential:
    """A 3 × 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels_out, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(),
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv_block(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return functional.relu(maps + self.second(self.first(maps)))

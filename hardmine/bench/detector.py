"""A one-stage detector small enough to train from nothing on one core within a minute.

The layout is that of FCOS without its towers: a residual trunk, two levels (strides 8 and 16),
at each place a score for every class and the distances to the four sides of a box.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional
from torchvision.ops import generalized_box_iou_loss, sigmoid_focal_loss

from hardmine.errors import InputError

STRIDES = (8, 16)
_LARGE = 0.3  # boxes longer than this share of the side belong to the coarser level
_MEAN, _SPREAD = 118.0, 60.0  # of pixel values


class Answers(NamedTuple):
    """What the detector says at P places of B pictures.

    Attributes:
        logits: (B, P, C) float32.
        boxes: (B, P, 4) float32 xyxy in pixels.
    """

    logits: torch.Tensor
    boxes: torch.Tensor


class Goals(NamedTuple):
    """What it should say.

    Attributes:
        class_rows: (B, P) int16, -1 where nothing is.
        boxes: (B, P, 4) float32 xyxy; any value where nothing is.
    """

    class_rows: torch.Tensor
    boxes: torch.Tensor


class SmallDetector(nn.Module):
    """Pictures -> class scores and boxes at the places of two grids.

    Args:
        num_classes: C.
        side: Of the square pictures, in pixels; a multiple of 16.
        width: Channels of the first stage; the later ones have two and four times as many.
    """

    places: torch.Tensor
    strides: torch.Tensor

    def __init__(self, num_classes: int, *, side: int = 128, width: int = 32) -> None:
        super().__init__()
        if side % STRIDES[-1]:
            raise InputError(f"side must be a multiple of {STRIDES[-1]}, got {side}")
        places, strides = places_of(side)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.stem = nn.Sequential(
            nn.Conv2d(3, width, 4, 4), nn.BatchNorm2d(width), nn.ReLU(), conv(width, width)
        )
        self.fine = nn.Sequential(conv(width, 2 * width, 2), _Residual(2 * width))
        self.coarse = nn.Sequential(
            conv(2 * width, 4 * width, 2), _Residual(4 * width), _Residual(4 * width)
        )
        self.lateral = nn.Conv2d(4 * width, 2 * width, 1)
        self.neck = nn.ModuleList([conv(2 * width, 2 * width), conv(4 * width, 2 * width)])
        self.classify = nn.Conv2d(2 * width, num_classes, 3, padding=1)
        self.frame = nn.Conv2d(2 * width, 4, 3, padding=1)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -4.0)  # at first nearly nothing is seen

    def forward(self, pixels: torch.Tensor) -> Answers:
        """Look at (B, 3, S, S) uint8 pictures, in the precision of the weights."""
        pictures = (pixels.float() - _MEAN) / _SPREAD
        pictures = pictures.to(self.classify.weight.dtype, memory_format=torch.channels_last)
        fine = self.fine(self.stem(pictures))
        coarse = self.coarse(fine)
        lateral = functional.interpolate(self.lateral(coarse), scale_factor=2)
        inputs = fine + lateral, coarse
        levels = [neck(level) for neck, level in zip(self.neck, inputs, strict=True)]
        logits, frames = (
            torch.cat([head(level).flatten(2).transpose(1, 2) for level in levels], 1).float()
            for head in (self.classify, self.frame)
        )
        return Answers(logits, boxes_at(self.places, self.strides, frames))


def set_goals(boxes: torch.Tensor, class_rows: torch.Tensor, side: int) -> Goals:
    """Say which place of one picture answers for which box.

    A place answers for a box if it lies within a stride of the box's centre and inside the box,
    on the level that fits the box's size; among several for the smallest.

    Args:
        boxes: (M, 4) float32 xyxy.
        class_rows: (M,) int64.
        side: Of the picture.

    Returns:
        Goals of shape (P,) and (P, 4).
    """
    places, strides = places_of(side)
    if not len(boxes):
        return Goals(torch.full((len(places),), -1, dtype=torch.int16), places.new_zeros(1, 4))
    low, high = boxes[:, :2], boxes[:, 2:]
    near = torch.minimum(((high - low) / 2).clamp(min=4.0), strides[:, None, None])
    inside = ((places[:, None] - (low + high) / 2).abs() <= near).all(-1)
    large = (high - low).amax(1) >= _LARGE * side
    fits = inside & (large == (strides == STRIDES[-1])[:, None])
    areas = torch.where(fits, (high - low).prod(1), torch.inf)
    least, smallest = areas.min(1)
    answered = torch.where(least.isfinite(), class_rows[smallest], -1).to(torch.int16)
    return Goals(answered, boxes[smallest])


def loss_of(answers: Answers, goals: Goals) -> torch.Tensor:
    """Focal loss of the classes plus generalised IoU loss of the boxes, an answering place."""
    answered = goals.class_rows >= 0
    count = answered.sum().clamp(min=1)
    wanted = torch.zeros_like(answers.logits)
    wanted[answered, goals.class_rows[answered].long()] = 1
    classes = sigmoid_focal_loss(answers.logits, wanted, reduction="sum")
    boxes = generalized_box_iou_loss(
        answers.boxes[answered], goals.boxes[answered], reduction="sum"
    )
    loss: torch.Tensor = (classes + boxes) / count
    return loss


def places_of(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Say where the answers are: (P, 2) centres of both grids' cells, and (P,) their strides."""
    places, strides = [], []
    for stride in STRIDES:
        along = (torch.arange(side // stride) + 0.5) * stride
        rows, columns = torch.meshgrid(along, along, indexing="ij")
        places.append(torch.stack([columns.flatten(), rows.flatten()], 1))
        strides.append(torch.full((rows.numel(),), float(stride)))
    return torch.cat(places), torch.cat(strides)


def boxes_at(places: torch.Tensor, strides: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Boxes around places, from (B, P, 4) of any value that say how far their sides are."""
    reach = functional.softplus(frames) * (2 * strides[:, None])
    return torch.cat([places - reach[..., :2], places + reach[..., 2:]], -1)


def conv(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A 3 × 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()
    )


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = conv(channels, channels)
        self.second = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return functional.relu(maps + self.second(self.first(maps)))

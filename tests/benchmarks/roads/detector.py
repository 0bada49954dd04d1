"""A one-stage detector over the pretrained trunk: three levels, a small head, trained whole.

Only the trunk's first convolution stays as it is, as detectors commonly have it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from hardmine.bench.detector import LocationTargets, Outputs, decode_boxes
from hardmine.records import ImageSet
from tests.benchmarks.roads.trunk import CHANNELS, load_trunk

STRIDES = (8, 16, 32)
# Sides of a box, in pixels at the detector's size, above which it belongs to the next level.
_LEVEL_SIDES = (48.0, 112.0)
_WIDTH = 64


class RoadDetector(nn.Module):
    """(B, 3, H, W) uint8 -> class scores and boxes at the locations of three grids.

    Args:
        num_classes: C.
        trunk: The .npz file of the trunk.
        height: H, a multiple of 32.
        width: W, likewise.
    """

    locations: torch.Tensor
    strides: torch.Tensor

    def __init__(self, num_classes: int, *, trunk: Path, height: int, width: int) -> None:
        super().__init__()
        locations, strides = grid_locations(height, width)
        self.register_buffer("locations", locations, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.trunk = load_trunk(trunk)
        self.trunk.first_conv.requires_grad_(False)
        self.laterals = nn.ModuleList(_conv(count, _WIDTH) for count in CHANNELS)
        self.necks = nn.ModuleList(
            nn.Sequential(_depthwise(_WIDTH), _conv(_WIDTH, _WIDTH)) for _ in STRIDES
        )
        self.classify = nn.Sequential(_depthwise(_WIDTH), nn.Conv2d(_WIDTH, num_classes, 1))
        self.regress = nn.Sequential(_depthwise(_WIDTH), nn.Conv2d(_WIDTH, 4, 1))
        nn.init.normal_(self.classify[-1].weight, std=0.01)
        nn.init.constant_(self.classify[-1].bias, -4.0)  # low scores everywhere at the start

    def forward(self, pixels: torch.Tensor) -> Outputs:
        """Detect on a batch."""
        images = pixels.float().div_(255)
        fine, middle, coarse = (
            lateral(level) for lateral, level in zip(self.laterals, self.trunk(images), strict=True)
        )
        middle = middle + F.interpolate(coarse, scale_factor=2)
        fine = fine + F.interpolate(middle, scale_factor=2)
        levels = [neck(x) for neck, x in zip(self.necks, (fine, middle, coarse), strict=True)]
        logits, distances = (
            torch.cat([head(level).flatten(2).transpose(1, 2) for level in levels], 1)
            for head in (self.classify, self.regress)
        )
        return Outputs(logits, decode_boxes(self.locations, self.strides, distances))


@dataclass(frozen=True)
class RoadExamples:
    """Photos with their training targets, computed once.

    A target is the position of a box among all boxes. The grids are symmetric, so a flipped photo's
    targets are the flipped targets.

    Attributes:
        pixels: (all, H, W, 3) uint8, of all photos.
        rows: (N,) rows of these photos among all.
        assigned: (N, P) int32 position of each location's box; -1 for background.
        boxes: (M, 4) float32 xyxy in pixels of the detector's size.
        class_rows: (M,) int16.
    """

    pixels: torch.Tensor
    rows: torch.Tensor
    assigned: torch.Tensor
    boxes: torch.Tensor
    class_rows: torch.Tensor

    def batch(
        self, rows: torch.Tensor, flipped: torch.Tensor
    ) -> tuple[torch.Tensor, LocationTargets]:
        """Detector inputs and targets of (B,) photos; ``flipped`` says which are flipped."""
        height, width = self.pixels.shape[1:3]
        pixels = self.pixels[self.rows[rows]]
        pixels = torch.where(flipped[:, None, None, None], pixels.flip(2), pixels)
        assigned = self.assigned[rows].long()
        mirrored = assigned[:, mirrored_locations(height, width)]
        assigned = torch.where(flipped[:, None], mirrored, assigned)
        background = assigned < 0
        if not len(self.boxes):
            boxes = torch.zeros(*assigned.shape, 4)
            return pixels.permute(0, 3, 1, 2), LocationTargets(assigned.short(), boxes)
        boxes = self.boxes[assigned.clamp(min=0)]
        flipped_boxes = boxes[..., [2, 1, 0, 3]] * boxes.new_tensor([-1.0, 1.0, -1.0, 1.0])
        flipped_boxes[..., [0, 2]] += width
        boxes = torch.where(flipped[:, None, None], flipped_boxes, boxes)
        class_rows = self.class_rows[assigned.clamp(min=0)].masked_fill(background, -1)
        return pixels.permute(0, 3, 1, 2), LocationTargets(class_rows, boxes)


def make_examples(images: ImageSet, pixels: torch.Tensor, rows: torch.Tensor) -> RoadExamples:
    """Assign the boxes of labelled photos to locations.

    Args:
        images: N labelled photos.
        pixels: (all, H, W, 3) uint8.
        rows: (N,) rows of the photos among all.
    """
    instances = images.instances
    assert instances is not None
    height, width = pixels.shape[1:3]
    all_boxes = torch.from_numpy(instances.boxes).clone()
    starts = torch.searchsorted(
        torch.from_numpy(instances.image_rows), torch.arange(len(images) + 1, dtype=torch.int32)
    )
    assigned = []
    for row, (first, last) in enumerate(
        zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)
    ):
        file_height, file_width = images.sizes[row].tolist()
        scale = torch.tensor([width / file_width, height / file_height] * 2)
        all_boxes[first:last] *= scale
        own = assign_boxes(all_boxes[first:last], height, width)
        assigned.append(torch.where(own >= 0, own + first, -1).int())
    class_rows = torch.from_numpy(instances.class_rows).short()
    return RoadExamples(pixels, rows, torch.stack(assigned), all_boxes, class_rows)


def assign_boxes(boxes: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Assign the boxes of one photo to locations.

    A location gets a box if it lies inside the box, within a stride of its centre, on the level
    that fits the box's longer side. Among several boxes the smallest wins.

    Args:
        boxes: (M, 4) float32 xyxy in pixels.
        height: H of the detector.
        width: W of the detector.

    Returns:
        (P,) position of the box; -1 for background.
    """
    locations, strides = grid_locations(height, width)
    if not len(boxes):
        return torch.full((len(locations),), -1)
    low, high = boxes[:, :2], boxes[:, 2:]
    reach = torch.minimum(((high - low) / 2).clamp(min=4.0), strides[:, None, None])
    inside = ((locations[:, None] - (low + high) / 2).abs() <= reach).all(-1)
    level_of_box = torch.bucketize((high - low).amax(1), torch.tensor(_LEVEL_SIDES))
    stride_of_box = torch.tensor([float(stride) for stride in STRIDES])[level_of_box]
    areas = torch.where(
        inside & (strides[:, None] == stride_of_box), (high - low).prod(1), torch.inf
    )
    smallest_area, smallest = areas.min(1)
    return torch.where(smallest_area.isfinite(), smallest, -1)


@lru_cache(maxsize=4)
def grid_locations(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centres of the cells of all grids, (P, 2) in pixels, and their strides, (P,)."""
    locations, strides = [], []
    for stride in STRIDES:
        rows, columns = torch.meshgrid(
            (torch.arange(height // stride) + 0.5) * stride,
            (torch.arange(width // stride) + 0.5) * stride,
            indexing="ij",
        )
        locations.append(torch.stack([columns.flatten(), rows.flatten()], 1))
        strides.append(torch.full((rows.numel(),), float(stride)))
    return torch.cat(locations), torch.cat(strides)


@lru_cache(maxsize=4)
def mirrored_locations(height: int, width: int) -> torch.Tensor:
    """(P,) position of the location that each one falls on when the photo is flipped."""
    positions, first = [], 0
    for stride in STRIDES:
        grid = torch.arange((height // stride) * (width // stride)) + first
        positions.append(grid.view(height // stride, width // stride).flip(1).flatten())
        first += grid.numel()
    return torch.cat(positions)


def _conv(before: int, after: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)
    )


def _depthwise(channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, channels, 3, padding=1, groups=channels, bias=False),
        nn.BatchNorm2d(channels),
    )

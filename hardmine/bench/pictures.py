"""Images and boxes of a data set, held in memory at the size that the small detector sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from hardmine.datasets import open_image
from hardmine.errors import InputError
from hardmine.records import ImageSet


@dataclass(frozen=True)
class Pictures:
    """N square pictures with their labelled boxes.

    Attributes:
        pixels: (N, 3, S, S) uint8.
        boxes: (M, 4) float32 xyxy in pixels of the square, by picture.
        class_rows: (M,) int64.
        starts: (N + 1,) int64; picture i has the boxes from ``starts[i]`` to ``starts[i + 1]``.
        scales: (N, 2) float32, what takes x and y back to the image file.
    """

    pixels: torch.Tensor
    boxes: torch.Tensor
    class_rows: torch.Tensor
    starts: npt.NDArray[np.int64]
    scales: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def side(self) -> int:
        """S."""
        return self.pixels.shape[-1]

    def look(self, rows: torch.Tensor, mirrored: torch.Tensor | None = None) -> torch.Tensor:
        """What a detector sees of some rows, (B, 3, S, S), those told mirrored."""
        pixels = self.pixels[rows]
        if mirrored is None:
            return pixels
        return torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)


def read_pictures(
    images: ImageSet, side: int, *, on_image: Callable[[], None] = lambda: None
) -> Pictures:
    """Read every image, squeezed to a square.

    Args:
        images: With labels.
        side: S, of the squares.
        on_image: Called after each image.
    """
    instances = images.instances
    if instances is None:
        raise InputError("a detector learns from labels, and this image set has none")
    pixels = np.empty((len(images), 3, side, side), np.uint8)
    scales = np.empty((len(images), 2), np.float32)
    for row in range(len(images)):
        image = open_image(images.path(row))
        scales[row] = image.width / side, image.height / side
        square = image.resize((side, side), Image.Resampling.BILINEAR, reducing_gap=2.0)
        pixels[row] = np.asarray(square).transpose(2, 0, 1)
        on_image()
    single = ~instances.crowd
    rows = instances.image_rows[single]
    boxes = instances.boxes[single] / np.tile(scales[rows], 2)
    return Pictures(
        torch.from_numpy(pixels),
        torch.from_numpy(boxes),
        torch.from_numpy(instances.class_rows[single].astype(np.int64)),
        np.searchsorted(rows, np.arange(len(images) + 1)),
        scales,
    )

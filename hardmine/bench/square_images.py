"""Images and boxes of a data set, held in memory at the input size of the small detector."""

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
class SquareImages:
    """N square images with their labelled boxes.

    Attributes:
        pixels: (N, 3, S, S) uint8.
        boxes: (M, 4) float32 xyxy in pixels of the square, sorted by image.
        class_rows: (M,) int64.
        starts: (N + 1,) int64; image i has the boxes from ``starts[i]`` to ``starts[i + 1]``.
        scales: (N, 2) float32 factors from x and y in the square to x and y in the image file.
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
        """S, in pixels."""
        return self.pixels.shape[-1]

    def inputs(self, rows: torch.Tensor, flipped: torch.Tensor | None = None) -> torch.Tensor:
        """Detector inputs of some images, (B, 3, S, S).

        Args:
            rows: (B,) image rows.
            flipped: (B,) bool, which of them to flip left to right; None for none.
        """
        pixels = self.pixels[rows]
        if flipped is None:
            return pixels
        return torch.where(flipped[:, None, None, None], pixels.flip(3), pixels)


def read_square_images(
    images: ImageSet, side: int, *, on_image: Callable[[], None] = lambda: None
) -> SquareImages:
    """Read all images and resize each to a square, without keeping its aspect ratio.

    Args:
        images: Images with labels. Crowd boxes are left out.
        side: Side of the squares in pixels.
        on_image: Called after each image.
    """
    instances = images.instances
    if instances is None:
        raise InputError(
            f"the detector learns from labels, and the image set at {images.root} has none; "
            "load it with its annotations"
        )
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
    return SquareImages(
        torch.from_numpy(pixels),
        torch.from_numpy(boxes),
        torch.from_numpy(instances.class_rows[single].astype(np.int64)),
        np.searchsorted(rows, np.arange(len(images) + 1)),
        scales,
    )

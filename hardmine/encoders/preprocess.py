"""Preprocessing: resizes whole images to the encoder's input size, without cropping."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class WholeImage:
    """Resizes an image to ``size``, ignoring its aspect ratio, and normalises its colours.

    A crop would lose objects at the border. Resizing keeps the position of every patch: patch
    (row, column) covers that share of the image's height and width. Small and picklable, so that
    DataLoader workers need not carry the model.

    Attributes:
        size: Height and width in pixels.
        mean: Mean of red, green and blue, for values in [0, 1].
        std: Standard deviation of red, green and blue.
        interpolation: "bicubic" or "bilinear", always antialiased.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into (3, height, width) float32."""
        height, width = self.size
        method = PIL.Image.Resampling[self.interpolation.upper()]
        resized = image.convert("RGB").resize((width, height), method)
        pixels = np.array(resized, np.float32)
        pixels /= 255.0
        pixels -= np.array(self.mean, np.float32)
        pixels /= np.array(self.std, np.float32)
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))

    def __str__(self) -> str:
        mean, std = ("/".join(f"{x:.6g}" for x in values) for values in (self.mean, self.std))
        return f"{self.size[0]}x{self.size[1]} {self.interpolation} {mean} {std}"

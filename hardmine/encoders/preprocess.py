"""Preprocessing: resizes whole images to the encoder's input size, without cropping.

Images travel to the encoder's device as bytes, a quarter of the size, and are normalised there.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class WholeImage:
    """Resizes an image to ``size``, ignoring its aspect ratio; ``normalise`` then scales batches.

    A crop would lose objects at the border. Resizing keeps the position of every patch: patch
    (row, column) covers that share of the image's height and width. Small and picklable, so that
    DataLoader workers need not carry the model.

    Attributes:
        size: Height and width in pixels.
        mean: Mean of red, green and blue, for values in [0, 1].
        std: Standard deviation of red, green and blue.
        interpolation: "bicubic" or "bilinear", always antialiased.
        fast: Resize by torch, in about a quarter of the time that Pillow takes. Up to 1 % of the
            values then differ by 1 of 255, and more in portraits, which Pillow 13 resizes in
            another order than earlier versions. Not in the fingerprint of an encoder: an index
            says by itself which of the two it was made with.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    fast: bool = False

    def __call__(self, image: PIL.Image.Image) -> torch.Tensor:
        """Turn an image into (3, height, width) uint8, in memory as (height, width, 3)."""
        rgb = image if image.mode == "RGB" else image.convert("RGB")
        if self.fast:
            batch = torch.from_numpy(np.array(rgb))[None].permute(0, 3, 1, 2)
            return F.interpolate(batch, self.size, mode=self.interpolation, antialias=True)[0]
        height, width = self.size
        method = PIL.Image.Resampling[self.interpolation.upper()]
        return torch.from_numpy(np.array(rgb.resize((width, height), method))).permute(2, 0, 1)

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn (B, 3, height, width) uint8 into the float32 that the model takes, on its device.

        Every device rounds alike: each value is (x / 255 - mean) / std. Floats are taken as
        normalised, and returned as they are.
        """
        if batch.dtype != torch.uint8:
            return batch
        pixels = batch.permute(0, 2, 3, 1).to(torch.float32, memory_format=torch.contiguous_format)
        rows = pixels.flatten(2)  # long rows are several times as fast as rows of three colours
        # Tensors: of a number, a GPU would take the reciprocal, which rounds in another way.
        for value, operation in (
            ((255.0,) * 3, torch.Tensor.div_),
            (self.mean, torch.Tensor.sub_),
            (self.std, torch.Tensor.div_),
        ):
            operation(rows, torch.tensor(value, device=batch.device).repeat(pixels.shape[2]))
        return pixels.permute(0, 3, 1, 2)

    def __str__(self) -> str:
        mean, std = ("/".join(f"{x:.6g}" for x in values) for values in (self.mean, self.std))
        return f"{self.size[0]}x{self.size[1]} {self.interpolation} {mean} {std}"

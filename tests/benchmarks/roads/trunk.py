"""The pretrained trunk of the detector: a small ShuffleNetV2, with its batch norms folded away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tests.support.photo_encoder import fold_norms

CHANNELS = (48, 96, 192)  # of the three stages, at strides of 8, 16 and 32 pixels
_BLOCKS = (4, 8, 4)
_STEM = 24


class Trunk(nn.Module):
    """(B, 3, H, W) RGB in [0, 1] -> features at strides of 8, 16 and 32 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.first_conv = nn.Sequential(*_conv(3, _STEM, 3, 2))
        self.pool = nn.MaxPool2d(3, 2, 1)
        inputs = (_STEM, *CHANNELS[:-1])
        self.stage2, self.stage3, self.stage4 = (
            nn.Sequential(
                _DownBlock(before, after),
                *(_Block(after) for _ in range(count - 1)),
            )
            for before, after, count in zip(inputs, CHANNELS, _BLOCKS, strict=True)
        )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Features of the three stages."""
        fine = self.stage2(self.pool(self.first_conv(images)))
        middle = self.stage3(fine)
        return fine, middle, self.stage4(middle)


def load_trunk(path: Path) -> Trunk:
    """Read the trunk's weights, and fold its norms.

    Training then needs no statistics of a batch, which depend on what is drawn with what, and takes
    less time.

    Args:
        path: The .npz file of the trunk, trained on BGR images.
    """
    trunk = Trunk().eval()
    with np.load(path) as arrays:
        state = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    missing = trunk.load_state_dict(state, strict=False)
    assert not missing.unexpected_keys
    assert all(name.endswith("num_batches_tracked") for name in missing.missing_keys)
    fold_norms(trunk)
    with torch.no_grad():
        weight = trunk.first_conv[0].weight
        weight.copy_(weight[:, [2, 1, 0]].clone())  # the photos are RGB
    return trunk


class _DownBlock(nn.Module):
    """Halves the grid; both branches see all channels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        inner = after // 2
        self.branch_main = nn.Sequential(
            *_conv(before, inner, 1),
            *_conv(inner, inner, 3, 2, depthwise=True),
            *_conv(inner, after - before, 1),
        )
        self.branch_proj = nn.Sequential(
            *_conv(before, before, 3, 2, depthwise=True), *_conv(before, before, 1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([self.branch_proj(maps), self.branch_main(maps)], 1)


class _Block(nn.Module):
    """Keeps the even channels and transforms the odd ones."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch_main = nn.Sequential(
            *_conv(half, half, 1), *_conv(half, half, 3, depthwise=True), *_conv(half, half, 1)
        )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.cat([maps[:, 0::2], self.branch_main(maps[:, 1::2])], 1)


def _conv(
    before: int, after: int, size: int, stride: int = 1, *, depthwise: bool = False
) -> list[nn.Module]:
    """Convolution and norm, and a ReLU where it is not depthwise."""
    groups = before if depthwise else 1
    layers: list[nn.Module] = [
        nn.Conv2d(before, after, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    ]
    return layers if depthwise else [*layers, nn.ReLU(inplace=True)]

"""Preprocessing resizes the whole image, as torchvision does."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import Compose, InterpolationMode, Normalize, Resize, ToTensor

from hardmine.encoders.preprocess import CLIP_MEAN, CLIP_STD, WholeImage


def picture(width: int, height: int, mode: str = "RGB") -> Image.Image:
    channels = {"L": (), "RGB": (3,), "RGBA": (4,)}[mode]
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, *channels), np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize(
    ("width", "height"),
    [(1, 1), (64, 64), (640, 480), (33, 500)],
    ids=["one pixel", "exact", "larger", "tall"],
)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_same_as_torchvision(width: int, height: int, interpolation: str) -> None:
    image = picture(width, height)
    peer = Compose(
        [
            Resize((64, 96), InterpolationMode(interpolation), antialias=True),
            ToTensor(),
            Normalize(CLIP_MEAN, CLIP_STD),
        ]
    )
    tensor = WholeImage((64, 96), interpolation=interpolation)(image)
    assert tensor.shape == (3, 64, 96)
    torch.testing.assert_close(tensor, peer(image), atol=1e-6, rtol=0)


def test_nothing_is_cropped() -> None:
    """A pixel in any corner of a wide image reaches the tensor."""
    resize = WholeImage((32, 32))
    blank = resize(Image.new("RGB", (320, 32)))
    for x, y in ((0, 0), (319, 0), (0, 31), (319, 31)):
        image = Image.new("RGB", (320, 32))
        image.putpixel((x, y), (255, 255, 255))
        row, column = divmod(int((resize(image) - blank).sum(0).argmax()), 32)
        assert (row, column) == (y, x * 31 // 319)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_colour_modes(mode: str) -> None:
    image = picture(40, 30, mode)
    resize = WholeImage((16, 16))
    torch.testing.assert_close(resize(image), resize(image.convert("RGB")))


def test_mean_and_std() -> None:
    grey = Image.new("RGB", (8, 8), (51, 102, 153))
    tensor = WholeImage((4, 4), mean=(0.2, 0.2, 0.2), std=(0.5, 0.1, 0.2))(grey)
    expected = torch.tensor([0.0, 2.0, 2.0])
    torch.testing.assert_close(tensor.mean((1, 2)), expected, atol=1e-5, rtol=0)


def test_it_pickles_small_without_the_model() -> None:
    resize = WholeImage((64, 64))
    assert len(pickle.dumps(resize)) < 1000
    assert pickle.loads(pickle.dumps(resize)) == resize

"""Preprocessing resizes the whole image, as torchvision does."""

from __future__ import annotations

import pickle
from dataclasses import replace

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
    resize = WholeImage((64, 96), interpolation=interpolation)
    tensor = resize.normalise(resize(image)[None])[0]
    assert tensor.shape == (3, 64, 96)
    torch.testing.assert_close(tensor, peer(image), atol=1e-6, rtol=0)


@pytest.mark.parametrize("in_memory", [torch.contiguous_format, torch.channels_last])
def test_normalised_to_the_bit_as_numpy_does(in_memory: torch.memory_format) -> None:
    """All 256 values of each colour; indexes of earlier versions were normalised by NumPy."""
    values = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    expected = values.astype(np.float32)
    expected /= 255.0
    expected -= np.array(CLIP_MEAN, np.float32)
    expected /= np.array(CLIP_STD, np.float32)
    batch = torch.from_numpy(values).permute(0, 3, 1, 2).to(memory_format=in_memory)
    found = WholeImage((16, 16)).normalise(batch)
    np.testing.assert_array_equal(found.numpy(), expected.transpose(0, 3, 1, 2))
    assert WholeImage((16, 16)).normalise(found) is found


@pytest.mark.parametrize(("width", "height"), [(1, 1), (64, 64), (640, 480), (500, 33)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_fast_is_within_two_levels_of_pillow(width: int, height: int, interpolation: str) -> None:
    """On noise, which has the largest differences that an image can have."""
    image = picture(width, height)
    exact = WholeImage((64, 64), interpolation=interpolation)
    fast = replace(exact, fast=True)
    difference = (fast(image).int() - exact(image).int()).abs()
    assert difference.max() <= 2
    assert (difference > 0).float().mean() <= 0.02
    assert str(fast) == str(exact)  # an encoder's fingerprint has it in


@pytest.mark.parametrize("fast", [False, True])
def test_nothing_is_cropped(fast: bool) -> None:
    """A pixel in any corner of a wide image reaches the tensor."""
    resize = WholeImage((32, 32), fast=fast)
    for x, y in ((0, 0), (319, 0), (0, 31), (319, 31)):
        image = Image.new("RGB", (320, 32))
        image.putpixel((x, y), (255, 255, 255))
        row, column = divmod(int(resize(image).sum(0).argmax()), 32)
        assert (row, column) == (y, x * 31 // 319)


@pytest.mark.parametrize("mode", ["L", "RGBA"])
def test_other_colour_modes(mode: str) -> None:
    image = picture(40, 30, mode)
    resize = WholeImage((16, 16))
    torch.testing.assert_close(resize(image), resize(image.convert("RGB")))


def test_mean_and_std() -> None:
    grey = Image.new("RGB", (8, 8), (51, 102, 153))
    resize = WholeImage((4, 4), mean=(0.2, 0.2, 0.2), std=(0.5, 0.1, 0.2))
    tensor = resize.normalise(resize(grey)[None])
    expected = torch.tensor([[0.0, 2.0, 2.0]])
    torch.testing.assert_close(tensor.mean((2, 3)), expected, atol=1e-5, rtol=0)


def test_it_pickles_small_without_the_model() -> None:
    resize = WholeImage((64, 64))
    assert len(pickle.dumps(resize)) < 1000
    assert pickle.loads(pickle.dumps(resize)) == resize

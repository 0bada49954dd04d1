"""The whole-image vector equals open_clip's, at any size."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from open_clip.model import resize_pos_embed
from random_models import FAMILIES, TIMMS, random_model, tokenizer, tokenizer_of
from torch import nn

from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.errors import InputError

TOLERANCE = 1e-5  # float32 rounding is well below

# Sizes for the heavier timm towers; the others run at their own size.
SMALLER = {"swin": 64, "fastvit": 96, "eva-token": 56, "pe-core": 64}


def noise(count: int, size: tuple[int, int]) -> torch.Tensor:
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(1))


def own_embedding(model: Any, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return F.normalize(model.encode_image(images), dim=-1)


def resized(model: Any, size: tuple[int, int]) -> Any:
    """The same model for another image size, with positions resized by open_clip."""
    other = copy.deepcopy(model)
    visual = other.visual
    if hasattr(visual, "trunk"):
        visual.set_input_size(size)
        return other
    if hasattr(visual, "attnpool"):
        holder, name, cells = visual.attnpool, "positional_embedding", 32
    else:
        holder, name, cells = visual, "positional_embedding", visual.patch_size[0]
    grid = (size[0] // cells, size[1] // cells)
    state = {"visual.positional_embedding": getattr(holder, name).detach()}
    resize_pos_embed(state, SimpleNamespace(visual=SimpleNamespace(grid_size=grid)))
    setattr(holder, name, nn.Parameter(state["visual.positional_embedding"]))
    return other


@pytest.mark.parametrize("family", FAMILIES)
def test_whole_equals_open_clip_s_embedding(family: str) -> None:
    model = random_model(family)
    size = SMALLER.get(family)
    encoder = OpenClipEncoder(model, tokenizer_of(family), image_size=size)
    oracle = model if size is None else resized(model, (size, size))
    images = noise(3, encoder.image_size)
    whole = encoder.encode_images(images).whole
    torch.testing.assert_close(whole, own_embedding(oracle, images), atol=TOLERANCE, rtol=0)
    assert (whole @ whole.T).min() < 1 - 100 * TOLERANCE  # the images have different vectors


@pytest.mark.parametrize(
    "size",
    [(96, 96), (32, 32), (128, 64), (64, 128), (75, 101)],
    ids=["larger", "one cell", "tall", "wide", "odd"],
)
@pytest.mark.parametrize("family", ["resnet", "vit", "vit-average", "vit-custom-blocks", "coca"])
def test_whole_at_another_size_equals_the_resized_model_s(
    family: str, size: tuple[int, int]
) -> None:
    model = random_model(family)
    encoder = OpenClipEncoder(model, tokenizer_of(family), image_size=size)
    images = noise(2, size)
    features = encoder.encode_images(images)
    stride = 32 if family == "resnet" else 16
    assert features.patches.shape == (2, size[0] // stride, size[1] // stride, 48)
    own = own_embedding(resized(model, size), images)
    torch.testing.assert_close(features.whole, own, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("family", "size"),
    [
        ("convnext", (64, 96)),
        ("fastvit", (64, 128)),
        ("efficientnet", (70, 101)),
        ("swin", (96, 64)),
        ("vit-token", (64, 96)),
        ("vit-gap-registers", (48, 160)),
        ("eva-token", (70, 42)),
    ],
)
def test_timm_towers_at_other_sizes(family: str, size: tuple[int, int]) -> None:
    model = random_model(family)
    encoder = OpenClipEncoder(model, tokenizer(), image_size=size)
    oracle = resized(model, size) if hasattr(model.visual.trunk, "set_input_size") else model
    images = noise(2, size)
    own = own_embedding(oracle, images)
    torch.testing.assert_close(encoder.encode_images(images).whole, own, atol=TOLERANCE, rtol=0)


def test_a_tower_for_any_size_accepts_other_batch_sizes() -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    images = noise(2, (96, 48))
    other = OpenClipEncoder(random_model("vit"), tokenizer(), image_size=(96, 48))
    torch.testing.assert_close(
        encoder.encode_images(images).patches, other.encode_images(images).patches
    )


def test_a_tower_with_a_fixed_size_refuses_another() -> None:
    encoder = OpenClipEncoder(random_model("vit-gap"), tokenizer(), image_size=64)
    with pytest.raises(InputError, match=r"\(64, 64\).*got \(96, 96\).*image_size=\(96, 96\)"):
        encoder.encode_images(noise(1, (96, 96)))


@pytest.mark.parametrize("family", ["resnet", "vit", "convnext", "coca"])
def test_whole_at_the_native_size(family: str) -> None:
    model = random_model(family)
    native = 160 if family in TIMMS else 64
    encoder = OpenClipEncoder(model, tokenizer_of(family), image_size=192, whole="native")
    same = OpenClipEncoder(model, tokenizer_of(family), image_size=192)
    images = noise(2, (192, 192))
    small = F.interpolate(images, (native, native), mode="bicubic", antialias=True)
    features = encoder.encode_images(images)
    torch.testing.assert_close(features.whole, own_embedding(model, small), atol=TOLERANCE, rtol=0)
    torch.testing.assert_close(features.patches, same.encode_images(images).patches)
    assert encoder.fingerprint != same.fingerprint


def test_native_whole_needs_a_tower_for_any_size() -> None:
    with pytest.raises(InputError, match="has one fixed size"):
        OpenClipEncoder(random_model("vit-gap"), tokenizer(), image_size=64, whole="native")


@pytest.mark.parametrize(
    ("name", "size", "grid"),
    [
        ("RN50x4", 288, (9, 9)),
        ("RN50x64", 448, (14, 14)),
        ("ViT-L-14-336", 336, (24, 24)),
        ("ViT-bigG-14-CLIPA", 224, (16, 16)),
    ],
)
def test_output_shapes_of_large_models(name: str, size: int, grid: tuple[int, int]) -> None:
    from hardmine.encoders.dense import DenseMode
    from hardmine.encoders.open_clip import make_tower

    with torch.device("meta"):
        visual = open_clip.create_model(name, device="meta").visual.eval()
        patches, whole = make_tower(visual, DenseMode())(torch.zeros(2, 3, size, size))
    assert patches.shape == (2, *grid, visual.output_dim)
    assert whole.shape == (2, visual.output_dim)


@pytest.mark.parametrize("name", ["RN50", "ViT-B-32"])
def test_whole_of_full_size_architectures(name: str) -> None:
    torch.manual_seed(0)
    model = open_clip.create_model(name).eval()
    encoder = OpenClipEncoder(model, open_clip.get_tokenizer(name))
    images = noise(1, encoder.image_size)
    own = own_embedding(model, images)
    torch.testing.assert_close(encoder.encode_images(images).whole, own, atol=1e-4, rtol=0)

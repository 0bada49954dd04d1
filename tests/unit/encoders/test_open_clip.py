"""OpenClipEncoder apart from its tower: texts, precision, batches, side effects."""

from __future__ import annotations

import copy
import logging
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from half_precision import needs_half_tower
from random_models import random_model, tokenizer, tokenizer_of
from torch import nn

from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.errors import InputError

TEXTS = ["a cat", "two dogs on a sofa", "traffic light", "", "a " * 40]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("family", ["vit", "coca", "convnext"])
def test_text_vectors_equal_open_clip_s(family: str) -> None:
    model: Any = random_model(family)
    with torch.no_grad():
        own = F.normalize(model.encode_text(tokenizer_of(family)(TEXTS)), dim=-1)
    texts = OpenClipEncoder(model, tokenizer_of(family)).encode_texts(TEXTS)
    torch.testing.assert_close(texts, own, atol=1e-6, rtol=0)
    assert (texts @ texts.T - torch.eye(len(TEXTS))).max() < 0.999


def test_many_texts_are_encoded_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    at_once = encoder.encode_texts(TEXTS)
    monkeypatch.setattr("hardmine.encoders.open_clip._TEXT_BATCH", 2)
    torch.testing.assert_close(encoder.encode_texts(TEXTS), at_once)


# bf16 rounds to 0.4 %, fp16 to 0.05 %. After a few layers the cosine with the float32 vectors is
# still above these values.
@pytest.mark.parametrize(
    ("precision", "cosine"),
    [("bf16", 0.998), pytest.param("fp16", 0.99995, marks=needs_half_tower)],
)
@pytest.mark.parametrize("family", ["resnet", "vit", "vit-custom-blocks", "coca", "convnext"])
def test_half_precision_is_close_to_float32(family: str, precision: str, cosine: float) -> None:
    model = random_model(family)
    exact = OpenClipEncoder(model, tokenizer_of(family))
    half = OpenClipEncoder(model, tokenizer_of(family), precision=precision)
    batch = noise(3, 3, *exact.image_size)
    one, other = exact.encode_images(batch), half.encode_images(batch)
    for vectors, approximate in (
        (one.patches, other.patches),
        (one.whole, other.whole),
        (exact.encode_texts(TEXTS), half.encode_texts(TEXTS)),
    ):
        assert approximate.dtype == torch.float32
        assert (vectors * approximate).sum(-1).min() > cosine
        assert not torch.equal(vectors, approximate)


def test_a_mixed_precision_model_works_in_all_precisions() -> None:
    from open_clip.model import CLIP
    from random_models import TEXT, VIT, randomise

    torch.manual_seed(0)
    model = randomise(CLIP(48, VIT, TEXT, cast_dtype=torch.bfloat16)).eval()  # LayerNormFp32
    exact = OpenClipEncoder(model, tokenizer()).encode_images(noise(2, 3, 64, 64))
    half = OpenClipEncoder(model, tokenizer(), precision="bf16").encode_images(noise(2, 3, 64, 64))
    assert (exact.patches * half.patches).sum(-1).min() > 0.998


def test_autocast_around_the_call_has_no_effect() -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    alone = encoder.encode_images(noise(2, 3, 64, 64)), encoder.encode_texts(TEXTS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = encoder.encode_images(noise(2, 3, 64, 64)), encoder.encode_texts(TEXTS)
    assert torch.equal(alone[0].patches, inside[0].patches)
    assert torch.equal(alone[1], inside[1])


def test_the_caller_s_model_is_unchanged() -> None:
    model = random_model("resnet").train()
    before = copy.deepcopy(model.state_dict())
    encoder = OpenClipEncoder(model, tokenizer(), precision="bf16")
    encoder.encode_images(noise(2, 3, 64, 64))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_gradients_are_off() -> None:
    encoder = OpenClipEncoder(random_model("resnet"), tokenizer())
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    assert not encoder.model.training
    batch = noise(2, 3, 64, 64).requires_grad_()
    features, texts = encoder.encode_images(batch), encoder.encode_texts(["a cat"])
    assert not (features.patches.requires_grad)
    assert not (features.whole.requires_grad)
    # They are not inference tensors, so autograd may use them.
    scale = torch.ones(48, requires_grad=True)
    ((features.whole * scale) @ texts.T).sum().backward()
    assert scale.grad is not None


@pytest.mark.slow
def test_a_compiled_tower_gives_the_same_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    # The eager backend traces without generating code, so it needs no compiler.
    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda tower: compile_with(tower, backend="eager"))
    model = random_model("vit")
    plain = OpenClipEncoder(model, tokenizer())
    compiled = OpenClipEncoder(model, tokenizer(), compile=True)
    for count in (1, 3):
        one = plain.encode_images(noise(count, 3, 64, 64))
        other = compiled.encode_images(noise(count, 3, 64, 64))
        torch.testing.assert_close(one.patches, other.patches, atol=1e-5, rtol=0)
        torch.testing.assert_close(one.whole, other.whole, atol=1e-5, rtol=0)


def test_a_size_with_ignored_pixels_logs_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        OpenClipEncoder(random_model("vit"), tokenizer(), image_size=(64, 70))
    assert "the last 0 rows and 6 columns are ignored" in caplog.text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"whole": "best"}, "whole must be 'same' or 'native', got 'best'"),
        ({"precision": "int8"}, "precision must be one of fp32, bf16, fp16, got 'int8'"),
        ({"image_size": 0}, "image_size must be positive, got 0"),
    ],
)
def test_options_are_checked(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OpenClipEncoder(random_model("vit"), tokenizer(), **options)


@pytest.mark.parametrize("shape", [(3, 64, 64), (1, 1, 64, 64), (1, 3, 64, 8)])
def test_batches_are_checked(shape: tuple[int, ...]) -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    with pytest.raises(InputError, match="images must"):
        encoder.encode_images(noise(*shape))


def test_an_unknown_tower_is_an_error() -> None:
    model: Any = random_model("vit")
    model.visual = nn.Conv2d(3, 48, 1)
    model.visual.image_size = 64
    with pytest.raises(InputError, match="got Conv2d"):
        OpenClipEncoder(model, tokenizer())

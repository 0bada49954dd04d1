"""OWL-ViT and OWLv2: cosines give the model's logits, boxes are the model's boxes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from half_precision import needs_half_tower
from random_owlvit import random_owlvit, word_tokenizer
from transformers.image_transforms import center_to_corners_format

from hardmine.encoders import load_encoder
from hardmine.encoders.owlvit import OwlVitEncoder
from hardmine.errors import InputError

TEXTS = ["a cat", "two dogs", "a photo of a traffic light"]


def images(*size: int, count: int = 3) -> torch.Tensor:
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(1))


def own_output(model: Any, batch: torch.Tensor, **options: Any) -> Any:
    tokens = word_tokenizer()(TEXTS, padding="max_length", max_length=16, return_tensors="pt")
    repeated = {key: value.repeat(len(batch), 1) for key, value in tokens.items()}
    with torch.no_grad():
        return model(pixel_values=batch, **repeated, **options)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("size", [(64, 64), (48, 96)], ids=["native", "wide"])
def test_cosines_give_the_model_s_logits(version: int, size: tuple[int, int]) -> None:
    model = random_owlvit(version)
    encoder = OwlVitEncoder(model, word_tokenizer(), image_size=size)
    batch = images(*size)
    options = {} if size == (64, 64) else {"interpolate_pos_encoding": True}
    own = own_output(model, batch, **options)
    features, texts = encoder.encode_images(batch), encoder.encode_texts(TEXTS)
    logits = encoder.logits(features.patches.flatten(1, 2) @ texts.T)
    torch.testing.assert_close(logits, own.logits, atol=1e-4, rtol=0)
    assert own.logits.std() > 0.1
    assert own.logits.abs().max() <= encoder.logit_bound
    assert features.boxes is not None
    corners = center_to_corners_format(own.pred_boxes).clamp(0, 1)
    torch.testing.assert_close(features.boxes.flatten(1, 2), corners)


def test_logits_rank_images_as_the_model_and_plain_cosines_do_not() -> None:
    """The shift and scale of each box change the order."""
    model = random_owlvit()
    batch = images(64, 64, count=16)
    own = own_output(model, batch).logits.amax(1).argsort(0)
    orders = {}
    for dense in ("logits", "cosine"):
        encoder = OwlVitEncoder(model, word_tokenizer(), dense=dense)
        scores = encoder.encode_images(batch).patches.flatten(1, 2) @ encoder.encode_texts(TEXTS).T
        orders[dense] = scores.amax(1).argsort(0)
    assert torch.equal(orders["logits"], own)
    assert not torch.equal(orders["cosine"], own)


def test_half_precision_storage_keeps_the_logits() -> None:
    """An index stores float16: the added coordinate must not cost the others their precision."""
    encoder = OwlVitEncoder(random_owlvit(), word_tokenizer())
    texts = encoder.encode_texts(TEXTS)
    patches = encoder.encode_images(images(64, 64)).patches
    exact = encoder.logits(patches @ texts.T)
    stored = encoder.logits(patches.half().float() @ texts.T)
    assert (exact - stored).abs().max() < 0.005 * exact.abs().max()


def test_the_logit_bound_holds_for_the_worst_input() -> None:
    """Gradient ascent on the head's input finds no box longer than the bound."""
    for seed in range(3):
        model = random_owlvit(seed=seed)
        encoder = OwlVitEncoder(model, word_tokenizer())
        worst = torch.randn(64, 1, 1, 32, requires_grad=True)
        optimizer = torch.optim.Adam([worst], lr=0.3)
        head = model.class_head
        for _ in range(60):
            features = model.layer_norm(worst)
            scale = head.elu(head.logit_scale(features)) + 1
            length = scale * (1 + head.logit_shift(features).square()).sqrt()
            optimizer.zero_grad()
            (-length.sum()).backward()
            optimizer.step()
        max_length = encoder.logit_bound / 2**0.5
        assert 0.3 * max_length < length.max() <= max_length * (1 + 1e-6)


@pytest.mark.parametrize("precision", ["bf16", pytest.param("fp16", marks=needs_half_tower)])
def test_half_precision_arithmetic(precision: str) -> None:
    model = random_owlvit(2)
    exact = OwlVitEncoder(model, word_tokenizer())
    half = OwlVitEncoder(model, word_tokenizer(), precision=precision)
    one, other = exact.encode_images(images(64, 64)), half.encode_images(images(64, 64))
    assert (one.patches * other.patches).sum(-1).min() > 0.995
    assert one.boxes is not None
    assert other.boxes is not None
    assert (one.boxes - other.boxes).abs().max() < 0.03


def test_cosine_mode_has_no_logits() -> None:
    encoder = OwlVitEncoder(random_owlvit(), word_tokenizer(), dense="cosine")
    assert encoder.dim == 24
    with pytest.raises(InputError, match="logits need an encoder with dense='logits'"):
        encoder.logits(torch.zeros(1))


def test_modes_are_checked() -> None:
    with pytest.raises(InputError, match="must be 'logits' or 'cosine'"):
        OwlVitEncoder(random_owlvit(), word_tokenizer(), dense="qq")


@pytest.mark.parametrize("version", [1, 2])
def test_a_folder_loads_and_its_spec_loads_it_again(tmp_path: Path, version: int) -> None:
    model = random_owlvit(version)
    model.save_pretrained(tmp_path)
    word_tokenizer().save_pretrained(tmp_path)
    encoder: Any = load_encoder(f"owlvit/{tmp_path}", image_size=96)
    own = OwlVitEncoder(model, word_tokenizer(), image_size=96)
    assert encoder.fingerprint == own.fingerprint
    torch.testing.assert_close(encoder.encode_texts(TEXTS), own.encode_texts(TEXTS))
    again: Any = load_encoder(**json.loads(json.dumps(encoder.spec)))
    assert again.fingerprint == encoder.fingerprint


def test_a_folder_with_another_model_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InputError, match="must be an OWL-ViT or OWLv2, got 'clip'"):
        load_encoder(f"owlvit/{tmp_path}")
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match="does not load as OWL-ViT"):
        load_encoder(f"owlvit/{tmp_path}")


def test_whole_is_the_mean_of_the_boxes() -> None:
    features = OwlVitEncoder(random_owlvit(), word_tokenizer()).encode_images(images(64, 64))
    mean = features.patches.numpy().astype(np.float64).mean((1, 2))
    mean /= np.linalg.norm(mean, axis=1, keepdims=True)
    np.testing.assert_allclose(features.whole.numpy(), mean, atol=1e-6)

"""Prompt templates: mean vectors and their cache."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES
from random_models import random_model, tokenizer

from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.encoders.templates import TEMPLATES, embed_prompts
from hardmine.errors import InputError


class CountingEncoder(OpenClipEncoder):
    """Records the texts it encodes."""

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        self.encoded = [*getattr(self, "encoded", []), *texts]
        return super().encode_texts(texts)


@pytest.fixture
def encoder() -> CountingEncoder:
    encoder = CountingEncoder(random_model("vit"), tokenizer())
    encoder.encoded = []
    return encoder


def test_clip80_is_the_published_set() -> None:
    assert TEMPLATES["clip80"] == tuple(make("{}") for make in OPENAI_IMAGENET_TEMPLATES)


@pytest.mark.parametrize("name", TEMPLATES)
def test_sets_are_well_formed(name: str) -> None:
    assert len(set(TEMPLATES[name])) == len(TEMPLATES[name]) > 0
    assert all(template.count("{}") == 1 for template in TEMPLATES[name])


def test_no_names(encoder: CountingEncoder) -> None:
    vectors = embed_prompts(encoder, [])
    assert vectors.shape == (0, 48)
    assert vectors.dtype == np.float32
    assert encoder.encoded == []


@pytest.mark.parametrize("templates", ["short", "plain", ["a {}", "the {}, small"]])
def test_a_vector_is_the_normalised_mean_of_its_prompts(
    encoder: CountingEncoder, templates: Any
) -> None:
    vectors = embed_prompts(encoder, ["cat", "traffic light"], templates)
    chosen = TEMPLATES[templates] if isinstance(templates, str) else templates
    for name, vector in zip(["cat", "traffic light"], vectors, strict=True):
        prompts = encoder.encode_texts([template.replace("{}", name) for template in chosen])
        mean = prompts.double().mean(0)
        np.testing.assert_allclose(vector, (mean / mean.norm()).numpy(), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_each_name_is_embedded_once_for_each_set(encoder: CountingEncoder) -> None:
    first = embed_prompts(encoder, ["cat", "dog", "cat"], "plain")
    again = embed_prompts(encoder, ["dog", "emu", "cat"], ["{}"])
    assert encoder.encoded == ["cat", "dog", "emu"]
    np.testing.assert_array_equal(first[0], first[2])
    np.testing.assert_array_equal(again[[0, 2]], first[[1, 0]])
    embed_prompts(encoder, ["cat"], ["a {}"])
    assert encoder.encoded[3:] == ["a cat"]


def test_many_names_are_embedded_in_parts(
    encoder: CountingEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"thing {number}" for number in range(10)]
    monkeypatch.setattr("hardmine.encoders.templates._PROMPTS_AT_ONCE", 15)
    parts = embed_prompts(encoder, names, "short")
    other = OpenClipEncoder(random_model("vit"), tokenizer())
    monkeypatch.undo()
    np.testing.assert_allclose(parts, embed_prompts(other, names, "short"), atol=1e-6)


def test_the_cache_is_separate_for_each_encoder_and_safe_from_callers() -> None:
    one = OpenClipEncoder(random_model("vit"), tokenizer())
    two = OpenClipEncoder(random_model("vit", seed=1), tokenizer())
    first = embed_prompts(one, ["cat"])
    first += 1
    assert abs(np.linalg.norm(embed_prompts(one, ["cat"])) - 1) < 1e-6
    assert np.abs(embed_prompts(two, ["cat"]) - embed_prompts(one, ["cat"])).max() > 0.01


def test_the_cache_is_freed_with_its_encoder() -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    embed_prompts(encoder, ["cat"])
    gone = weakref.ref(encoder)
    del encoder
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize(
    ("names", "templates", "message"),
    [
        (["cat"], "long", "must be one of clip80, short, plain"),
        (["cat"], ["a photo"], "must contain {} in place of the name, got 'a photo'"),
        (["cat"], [], "at least one template"),
        ("cat", "short", "got one text"),
    ],
)
def test_bad_input(names: Any, templates: Any, message: str) -> None:
    encoder = OpenClipEncoder(random_model("vit"), tokenizer())
    with pytest.raises(InputError, match=message):
        embed_prompts(encoder, names, templates)


def test_braces_in_names_are_plain_text(encoder: CountingEncoder) -> None:
    embed_prompts(encoder, ["{odd} {0}"], ["a {}"])
    assert encoder.encoded == ["a {odd} {0}"]

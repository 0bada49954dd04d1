"""The contract of an encoder, checked on every encoder."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from random_models import random_model, tokenizer_of
from random_owlvit import random_owlvit, word_tokenizer

from hardmine.encoders import Encoder, load_encoder
from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.encoders.owlvit import OwlVitEncoder
from hardmine.encoders.precomputed import PrecomputedEncoder

TEXTS = ["a cat", "two dogs", "a photo of a traffic light"]
PICTURES = 5


def open_clip_encoder(family: str, **options: Any) -> Callable[[], Encoder]:
    return lambda: OpenClipEncoder(random_model(family), tokenizer_of(family), **options)


def precomputed_encoder() -> Encoder:
    rng = np.random.default_rng(0)
    return PrecomputedEncoder(
        [f"{number}.png" for number in range(PICTURES)],
        rng.normal(size=(PICTURES, 2, 3, 16)),
        TEXTS,
        rng.normal(size=(len(TEXTS), 16)),
    )


ENCODERS: dict[str, Callable[[], Encoder]] = {
    "open_clip resnet": open_clip_encoder("resnet", image_size=96),
    "open_clip vit": open_clip_encoder("vit"),
    "open_clip vit, published mode, odd size": open_clip_encoder(
        "vit", dense="naclip", image_size=(80, 48)
    ),
    "open_clip vit, native whole": open_clip_encoder("vit", image_size=96, whole="native"),
    "open_clip vit, bf16": open_clip_encoder("vit", precision="bf16"),
    "open_clip coca": open_clip_encoder("coca"),
    "open_clip convnext": open_clip_encoder("convnext", image_size=64),
    "open_clip timm class token": open_clip_encoder("vit-token", image_size=64),
    "open_clip siglip-like": open_clip_encoder("vit-map", image_size=64),
    "owlvit": lambda: OwlVitEncoder(random_owlvit(1), word_tokenizer()),
    "owlv2, cosine": lambda: OwlVitEncoder(random_owlvit(2), word_tokenizer(), dense="cosine"),
    "precomputed": precomputed_encoder,
    "tiny": lambda: load_encoder("tiny", image_size=96),
}


@cache
def build(name: str) -> Encoder:
    return ENCODERS[name]()


@pytest.fixture(params=ENCODERS)
def encoder(request: pytest.FixtureRequest) -> Encoder:
    return build(request.param)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Image.Image]:
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    opened = []
    for number in range(PICTURES):
        coarse = rng.integers(0, 256, (6, 9, 3), np.uint8)
        picture = Image.fromarray(coarse).resize((90 + 20 * number, 60), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number}.png")
        with Image.open(folder / f"{number}.png") as image:
            image.load()  # closes the file; its name remains
            opened.append(image)
    return opened


@pytest.fixture
def batch(encoder: Encoder, pictures: list[Image.Image]) -> torch.Tensor:
    return torch.stack([encoder.preprocess(picture) for picture in pictures])


def assert_unit(vectors: torch.Tensor) -> None:
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))


def test_it_follows_the_protocol(encoder: Encoder) -> None:
    assert isinstance(encoder, Encoder)
    assert isinstance(encoder.dim, int)
    assert isinstance(encoder.fingerprint, str)
    assert len(encoder.fingerprint) >= 16
    assert load_encoder(encoder) is encoder


def test_preprocess_gives_tensors_of_one_shape(
    encoder: Encoder, pictures: list[Image.Image]
) -> None:
    tensors = [encoder.preprocess(picture) for picture in pictures]
    assert len({(tensor.shape, tensor.dtype) for tensor in tensors}) == 1
    assert tensors[0].shape[0] == 3


def test_preprocess_pickles_without_the_model(
    encoder: Encoder, pictures: list[Image.Image]
) -> None:
    sent = pickle.dumps(encoder.preprocess)
    assert len(sent) < 10_000
    loaded = pickle.loads(sent)
    assert torch.equal(loaded(pictures[0]), encoder.preprocess(pictures[0]))


def test_images_become_unit_vectors(encoder: Encoder, batch: torch.Tensor) -> None:
    features = encoder.encode_images(batch)
    count, height, width, dim = features.patches.shape
    assert (count, dim) == (PICTURES, encoder.dim)
    assert height * width > 1
    assert features.whole.shape == (PICTURES, encoder.dim)
    assert_unit(features.patches)
    assert_unit(features.whole)
    if features.boxes is not None:
        assert features.boxes.shape == (PICTURES, height, width, 4)
        assert (features.boxes[..., :2] <= features.boxes[..., 2:]).all()
        assert 0 <= features.boxes.min() <= features.boxes.max() <= 1


def test_different_images_and_patches_differ(encoder: Encoder, batch: torch.Tensor) -> None:
    features = encoder.encode_images(batch)
    for vectors in (features.whole, features.patches[0].flatten(0, 1)):
        assert (vectors @ vectors.T).min() < 0.9999


def test_vectors_do_not_depend_on_the_batch(encoder: Encoder, batch: torch.Tensor) -> None:
    many = encoder.encode_images(batch)
    # bf16 rounds to 0.4 %, and other batch sizes sum in another order.
    tolerance = 2e-2 if getattr(encoder, "precision", "fp32") == "bf16" else 1e-5
    for row in range(PICTURES):
        one = encoder.encode_images(batch[row : row + 1])
        torch.testing.assert_close(one.patches[0], many.patches[row], atol=tolerance, rtol=0)
        torch.testing.assert_close(one.whole[0], many.whole[row], atol=tolerance, rtol=0)


def test_the_same_batch_gives_the_same_vectors(encoder: Encoder, batch: torch.Tensor) -> None:
    first, second = encoder.encode_images(batch), encoder.encode_images(batch.clone())
    assert torch.equal(first.patches, second.patches)
    assert torch.equal(first.whole, second.whole)


def test_an_empty_batch(encoder: Encoder, batch: torch.Tensor) -> None:
    features, empty = encoder.encode_images(batch), encoder.encode_images(batch[:0])
    assert empty.patches.shape == (0, *features.patches.shape[1:])
    assert empty.whole.shape == (0, encoder.dim)


def test_the_batch_is_not_modified(encoder: Encoder, batch: torch.Tensor) -> None:
    before = batch.clone()
    encoder.encode_images(batch)
    assert torch.equal(batch, before)


def test_texts_become_unit_vectors(encoder: Encoder) -> None:
    texts = encoder.encode_texts(TEXTS)
    assert texts.shape == (len(TEXTS), encoder.dim)
    assert texts.device.type == "cpu"
    assert_unit(texts)
    assert (texts @ texts.T - 2 * torch.eye(len(TEXTS))).max() < 0.9999


def test_text_vectors_do_not_depend_on_the_list(encoder: Encoder) -> None:
    together = encoder.encode_texts(TEXTS)
    alone = torch.cat([encoder.encode_texts([text]) for text in TEXTS[::-1]])
    tolerance = 2e-2 if getattr(encoder, "precision", "fp32") == "bf16" else 1e-5
    torch.testing.assert_close(alone.flip(0), together, atol=tolerance, rtol=0)


def test_no_texts(encoder: Encoder) -> None:
    assert encoder.encode_texts([]).shape == (0, encoder.dim)


def test_one_text_instead_of_a_list_is_refused(encoder: Encoder) -> None:
    with pytest.raises(ValueError, match=r"use \['a cat'\]"):
        encoder.encode_texts("a cat")


def test_nothing_tracks_gradients(encoder: Encoder, batch: torch.Tensor) -> None:
    features = encoder.encode_images(batch.float().requires_grad_())
    for vectors in (features.patches, features.whole, encoder.encode_texts(TEXTS)):
        assert not vectors.requires_grad
        assert not vectors.is_inference()


def test_loaded_again_it_has_the_same_fingerprint(
    encoder: Encoder, request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.params["encoder"]
    assert ENCODERS[name]().fingerprint == encoder.fingerprint


def test_all_fingerprints_differ() -> None:
    prints = [build(name).fingerprint for name in ENCODERS]
    assert len(set(prints)) == len(prints)


def test_every_encoder_of_the_package_is_covered() -> None:
    """A new encoder module must be added to this suite."""
    import hardmine.encoders

    folder = Path(hardmine.encoders.__file__).parent
    with_encoder = {
        file.stem for file in folder.rglob("*.py") if "def encode_images" in file.read_text("utf-8")
    }
    covered = {type(build(name)).__module__.rsplit(".", 1)[-1] for name in ENCODERS}
    assert with_encoder - {"base"} <= covered

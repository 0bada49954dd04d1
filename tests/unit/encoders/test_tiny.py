"""The encoder "tiny": its files, and how well it recognises generated scenes."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image

from hardmine.encoders import load_encoder
from hardmine.encoders import tiny as package
from hardmine.encoders.preprocess import WholeImage
from hardmine.encoders.templates import embed_prompts
from hardmine.encoders.tiny import load_model
from hardmine.encoders.tiny.scene_image import SceneImage, warn_of_photos
from hardmine.errors import WeightsUnavailable
from hardmine.scenes import NAMES, generate_scene
from hardmine.scenes.contexts import apply_context
from hardmine.scenes.kinds import KINDS
from hardmine.scenes.paint import mix_paint
from hardmine.scenes.pen import Pen

FOLDER = Path(package.__file__).parent


@pytest.fixture(scope="module")
def encoder():
    return load_encoder("tiny", device="cpu")


def test_it_is_small_and_an_open_clip_model() -> None:
    assert (FOLDER / "weights.safetensors").stat().st_size <= 5_000_000
    model, tokenizer = load_model()
    assert type(model) is open_clip.CLIP
    assert type(tokenizer) is open_clip.SimpleTokenizer
    assert not model.training
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_its_vectors_equal_open_clip_s(encoder) -> None:
    model, tokenizer = load_model()
    images = torch.stack([encoder.preprocess(generate_scene(1, i).picture) for i in range(3)])
    with torch.no_grad():
        whole = model.encode_image(encoder.preprocess.normalise(images), normalize=True)
        texts = model.encode_text(tokenizer(["a red car", "fog"]), normalize=True)
    torch.testing.assert_close(encoder.encode_images(images).whole, whole, atol=1e-4, rtol=0)
    torch.testing.assert_close(encoder.encode_texts(["a red car", "fog"]), texts)


def test_the_patch_grid_is_at_least_12_by_12(encoder) -> None:
    patches = encoder.encode_images(encoder.preprocess(generate_scene(1, 0).picture)[None]).patches
    assert min(patches.shape[1:3]) >= 12


@pytest.mark.parametrize("name", ["weights.safetensors", "vocabulary.txt.gz"])
def test_an_altered_file_is_refused(tmp_path, monkeypatch, name) -> None:
    for path in FOLDER.iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    monkeypatch.setattr(package, "_HERE", tmp_path)
    load_model()
    altered = bytearray((tmp_path / name).read_bytes())
    altered[len(altered) // 2] ^= 1
    (tmp_path / name).write_bytes(altered)
    with pytest.raises(WeightsUnavailable, match=f"{name} is not the file that was shipped"):
        load_model()
    (tmp_path / name).unlink()
    with pytest.raises(WeightsUnavailable, match="missing; install hardmine again"):
        load_model()


def test_every_file_it_loads_has_a_checksum() -> None:
    assert set(json.loads((FOLDER / "checksums.json").read_text())) == {
        "config.json",
        "vocabulary.txt.gz",
        "weights.safetensors",
    }


def test_its_tokens_are_clip_s_and_any_text_can_be_encoded() -> None:
    _, tokenizer = load_model()
    clip = open_clip.SimpleTokenizer()
    for text in (*NAMES, "a photo of a red car at night.", "a kitten in the rain"):
        pieces = [tokenizer.decoder[token] for token in tokenizer.encode(text)]
        assert pieces == [clip.decoder[token] for token in clip.encode(text)]
    for text in ("xylophone", "Österreich", "電車", "x" * 300, ""):
        tokens = tokenizer([text])
        assert tokens.max() < tokenizer.vocab_size
        assert (tokens == tokenizer.eot_token_id).sum() == 1


def test_it_names_each_kind_drawn_alone(encoder) -> None:
    """Single objects on plain backgrounds, without the clutter of its training images."""
    pictures, truth = [], []
    for row, kind in enumerate(KINDS):
        for turn in range(2):
            rng = np.random.default_rng((77, row, turn))
            pen = Pen(34, angle=float(np.radians(kind.tilt) * rng.uniform(-1, 1)))
            color = kind.colors[int(rng.integers(len(kind.colors)))]
            kind.draw(pen, mix_paint(color, "plain", rng), rng)
            cutout = pen.finish()
            picture = Image.new("RGB", (224, 224), tuple(rng.integers(90, 200, 3).tolist()))
            corner = (112 - cutout.width // 2, 112 - cutout.height // 2)
            picture.paste(cutout, corner, cutout)
            pictures.append(encoder.preprocess(apply_context(picture, "day", rng)))
            truth.append(row)
    whole = encoder.encode_images(torch.stack(pictures)).whole.numpy()
    guesses = (whole @ embed_prompts(encoder, NAMES).T).argmax(1)
    assert (guesses == truth).mean() > 0.9  # chance is 1 in 36


def test_the_best_patch_for_an_object_lies_in_its_box(encoder) -> None:
    """Far more often than the share of the image that the box covers."""
    inside, area = [], []
    for index in range(60):
        scene = generate_scene(2027, index, tail=2)
        large = [
            (thing, box / 224)
            for thing, box in zip(scene.objects, scene.boxes, strict=True)
            if thing.extent > 0.25 and [o.kind for o in scene.objects].count(thing.kind) == 1
        ]
        if not large:
            continue
        patches = encoder.encode_images(encoder.preprocess(scene.picture)[None]).patches[0].numpy()
        for thing, (left, top, right, bottom) in large:
            text = embed_prompts(encoder, [thing.kind])[0]
            row, column = np.unravel_index((patches @ text).argmax(), patches.shape[:2])
            x, y = (column + 0.5) / patches.shape[1], (row + 0.5) / patches.shape[0]
            slack = 0.5 / patches.shape[0]
            inside.append(left - slack <= x <= right + slack and top - slack <= y <= bottom + slack)
            area.append((right - left) * (bottom - top))
    assert len(inside) > 30
    assert np.mean(inside) > max(0.6, 2 * np.mean(area))


def test_it_warns_once_about_images_that_are_not_scenes(encoder, caplog) -> None:
    warn_of_photos.cache_clear()
    with caplog.at_level(logging.WARNING):
        encoder.preprocess(generate_scene(0, 0).picture)
        assert not caplog.records
        photo = Image.new("RGB", (64, 48), (90, 120, 60))
        first, again = encoder.preprocess(photo), encoder.preprocess(photo)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "generated scenes only" in caplog.text
    assert torch.equal(first, again)
    plain = WholeImage(encoder.preprocess.size)
    assert torch.equal(first, plain(photo))


def test_its_preprocessing_is_picklable(encoder) -> None:
    again = pickle.loads(pickle.dumps(encoder.preprocess))
    assert again == encoder.preprocess
    assert isinstance(again, SceneImage)

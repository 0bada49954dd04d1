"""Precomputed vectors: images by file name, texts by exact match."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hardmine.encoders import load_encoder
from hardmine.encoders.precomputed import PrecomputedEncoder
from hardmine.encoders.templates import embed_prompts
from hardmine.errors import InputError

IMAGES = ["train/a.jpg", "train/b.jpg", "c"]
TEXTS = ["cat", "traffic light"]


def arrays(*grid: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "images": np.array(IMAGES),
        "vectors": rng.normal(size=(3, *grid, 8)).astype(np.float32),
        "texts": np.array(TEXTS),
        "text_vectors": rng.normal(size=(2, 8)),
    }


def unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / "photos" / name for name in ("train/a.jpg", "train/b.jpg", "c.png")]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (5, 4)).save(path)
    return paths


def encode(encoder: Any, pictures: list[Path]) -> Any:
    rows = []
    for picture in pictures:
        with Image.open(picture) as image:
            rows.append(encoder.preprocess(image))
    return encoder.encode_images(torch.stack(rows))


@pytest.mark.parametrize("grid", [(), (5,), (2, 3)], ids=["one", "regions", "grid"])
@pytest.mark.parametrize("form", ["npz", "folder"])
def test_vectors_from_files(
    tmp_path: Path, pictures: list[Path], grid: tuple[int, ...], form: str
) -> None:
    stored = arrays(*grid)
    source = tmp_path / ("vectors.npz" if form == "npz" else "vectors")
    if form == "npz":
        np.savez(source, **stored)
    else:
        source.mkdir()
        for key in ("images", "texts"):
            (source / f"{key}.txt").write_text("\n".join(stored[key]) + "\n", "utf-8")
        for key in ("vectors", "text_vectors"):
            np.save(source / f"{key}.npy", stored[key])
    encoder: Any = load_encoder(f"precomputed:{source}")
    features = encode(encoder, pictures[::-1])
    shape = {0: (1, 1), 1: (1, *grid), 2: grid}[len(grid)]
    expected = unit(stored["vectors"])[::-1].reshape(3, *shape, 8)
    np.testing.assert_allclose(features.patches.numpy(), expected, atol=1e-6)
    np.testing.assert_allclose(features.whole, unit(expected.mean((1, 2))), atol=1e-6)
    texts = encoder.encode_texts(["traffic light", "cat", "cat"])
    np.testing.assert_allclose(texts, unit(stored["text_vectors"])[[1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(embed_prompts(encoder, TEXTS, "plain"), texts[[1, 0]], atol=1e-6)
    again: Any = load_encoder(**encoder.spec)
    assert again.fingerprint == encoder.fingerprint
    assert encoder.dim == 8


def test_whole_and_boxes(pictures: list[Path]) -> None:
    rng = np.random.default_rng(1)
    whole, boxes = rng.normal(size=(3, 8)), rng.random((3, 5, 4)).astype(np.float32)
    encoder = PrecomputedEncoder(**arrays(5), whole=whole, boxes=boxes)
    features = encode(encoder, pictures)
    np.testing.assert_allclose(features.whole, unit(whole), atol=1e-6)
    np.testing.assert_array_equal(features.boxes.numpy(), boxes.reshape(3, 1, 5, 4))


def test_the_fingerprint_changes_with_every_array() -> None:
    prints = {PrecomputedEncoder(**arrays(5)).fingerprint}
    for key, place in (("vectors", (2, 4, 7)), ("text_vectors", (1, 0))):
        changed = arrays(5)
        changed[key][place] += 1e-3
        prints.add(PrecomputedEncoder(**changed).fingerprint)
    for key in ("images", "texts"):
        changed = arrays(5)
        changed[key] = changed[key][::-1]
        prints.add(PrecomputedEncoder(**changed).fingerprint)
    assert len(prints) == 5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": IMAGES[:2]}, r"for 2 images, got \(3, 8\)"),
        ({"texts": ["cat"]}, r"text_vectors must have shape \(1, 8\), got \(2, 8\)"),
        ({"text_vectors": np.zeros((2, 9))}, r"text_vectors must have shape \(2, 8\)"),
        ({"whole": np.zeros((3, 9))}, r"whole must have shape \(3, 8\)"),
        ({"boxes": np.zeros((3, 2, 4))}, r"boxes must have shape \(3, 4\)"),
        ({"images": ["a.jpg", "b", "a.png"]}, "image names must be unique, got 'a.png' twice"),
    ],
)
def test_arrays_are_checked(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PrecomputedEncoder(**{**arrays(), **changes})


def test_an_unknown_text_is_an_error_with_advice() -> None:
    encoder = PrecomputedEncoder(**arrays())
    with pytest.raises(InputError, match=r"'traffic lights' among 2; the nearest is 'traffic lig"):
        encoder.encode_texts(["traffic lights"])
    with pytest.raises(InputError, match="use templates='plain'"):
        embed_prompts(encoder, ["cat"], "short")


def test_an_unknown_image_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "d.png")
    encoder = PrecomputedEncoder(**arrays())
    with (
        Image.open(tmp_path / "d.png") as image,
        pytest.raises(InputError, match=r"no precomputed vector for .*d.png among 3"),
    ):
        encoder.preprocess(image)
    with pytest.raises(InputError, match="this image has none"):
        encoder.preprocess(Image.new("RGB", (2, 2)))


def test_an_image_with_its_path_in_info(pictures: list[Path]) -> None:
    image = Image.new("RGB", (2, 2))
    image.info["path"] = str(pictures[1])
    encoder = PrecomputedEncoder(**arrays())
    assert encoder.preprocess(image).tolist() == [[[1.0]]] * 3


@pytest.mark.parametrize(
    "write",
    [
        lambda file: file.write_bytes(b"nonsense"),
        lambda file: np.savez(file, images=np.array(["a"], object)),
        lambda file: np.savez(file, images=np.array(["a"])),
        lambda file: file.write_bytes(pickle.dumps({"images": ["a"]})),
    ],
    ids=["nonsense", "pickled objects", "arrays missing", "pickle"],
)
def test_unusable_files_are_an_error(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "vectors.npz")
    with pytest.raises(InputError, match=r"vectors\.npz"):
        load_encoder(f"precomputed:{tmp_path}/vectors.npz")

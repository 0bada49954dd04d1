"""A small data set with a real encoder: a word is a direction, a text the sum of its words."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.encoders.base import DenseFeatures
from hardmine.index.search.exact import ExactIndex, index_from_regions
from hardmine.records import ImageSet, Instances

DIM = 64
NAMES = ("car", "fork", "zebra")
# Words of the prompt templates, which say nothing of an image.
_SILENT = frozenset(
    {"a", "the", "of", "an", "in", "at", "photo", "scene", "close", "up", "many", "blurry"}
    | {"small", "large", "tiny", "far", "away"}
)


class WordEncoder:
    """Texts and images in one space; an image's three colour means stand for nothing but itself."""

    dim = DIM
    fingerprint = "words-64"

    def preprocess(self, image: Any) -> torch.Tensor:
        """Pixels as they are."""
        return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """A fixed projection of each patch's mean colour."""
        colours = torch.nn.functional.adaptive_avg_pool2d(batch, 4).permute(0, 2, 3, 1) - 0.5
        lift = torch.from_numpy(np.stack([word_vector(c) for c in ("red", "green", "blue")]))
        patches = torch.nn.functional.normalize(colours @ lift + 1e-3, dim=-1)
        whole = torch.nn.functional.normalize(patches.mean(dim=(1, 2)), dim=-1)
        return DenseFeatures(patches, whole)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """The sum of the words' directions, silent ones left out."""
        return torch.from_numpy(np.stack([text_vector(text) for text in texts]))


def word_vector(word: str) -> npt.NDArray[np.float32]:
    """A fixed random direction."""
    vector = np.random.default_rng(zlib.crc32(word.encode())).normal(size=DIM)
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def text_vector(text: str) -> npt.NDArray[np.float32]:
    """The unit vector of a text."""
    words = [word for word in re.findall(r"[a-z]+", text.lower()) if word not in _SILENT]
    total = np.sum([word_vector(word) for word in words or ["nothing"]], axis=0)
    return (total / np.linalg.norm(total)).astype(np.float32)


@dataclass(frozen=True)
class ToyData:
    """An index and its labels, and what the labels hide.

    Attributes:
        index: N images of four regions each.
        images: Their labels, in the order of the index.
        present: (N, C) what truly stands in each image.
        night: (N,) which images were taken at night.
    """

    index: ExactIndex
    images: ImageSet
    present: npt.NDArray[np.bool_]
    night: npt.NDArray[np.bool_]


def make_toy_data(
    num_images: int = 300,
    *,
    missing: float = 0.0,
    rates: Sequence[float] = (0.5, 0.1, 0.05),
    dark: float = 0.3,
    noise: float = 0.6,
    seed: int = 0,
) -> ToyData:
    """Lay out images whose regions are their objects' words, night's, and noise."""
    rng = np.random.default_rng(seed)
    present = rng.random((num_images, len(NAMES))) < np.asarray(rates)
    night = rng.random(num_images) < dark
    labelled = present & (rng.random(present.shape) >= missing)
    vectors = rng.normal(size=(num_images, 4, DIM)) / np.sqrt(DIM)
    vectors *= noise
    for column, name in enumerate(NAMES):
        vectors[:, column] += present[:, [column]] * word_vector(name)
    vectors += 0.4 * night[:, None, None] * word_vector("night")
    vectors[:, 3] += 0.5 * word_vector("street")
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    ids = np.arange(num_images) * 7 + 1000
    index = index_from_regions(
        vectors.reshape(-1, DIM).astype(np.float32),
        np.arange(num_images + 1) * 4,
        ids=ids,
        paths=[f"{name}.png" for name in ids.tolist()],
        encoder_fingerprint=WordEncoder.fingerprint,
    )
    return ToyData(index, labelled_images(ids, labelled), present, night)


def labelled_images(ids: npt.NDArray[Any], labelled: npt.NDArray[np.bool_]) -> ImageSet:
    """An image set with one box of 50 × 50 pixels for each label."""
    rows, columns = np.nonzero(labelled)
    count = len(rows)
    return ImageSet(
        root=Path(),
        ids=ids,
        paths=tuple(f"{name}.png" for name in ids.tolist()),
        sizes=np.full((len(ids), 2), 100, np.int32),
        class_names=NAMES,
        class_ids=np.arange(1, len(NAMES) + 1),
        instances=Instances(
            rows.astype(np.int32),
            columns.astype(np.int32),
            np.tile(np.float32([10, 10, 60, 60]), (count, 1)),
            np.full(count, 2500, np.float32),
            np.zeros(count, bool),
            np.arange(count, dtype=np.int64),
        ),
    )

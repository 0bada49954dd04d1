"""Trains a small detector on the real photos: a head over a frozen ImageNet trunk.

The trunk's feature maps of all photos are computed once. Class scores start from the similarity of
the text-aligned encoder's patches to the class names; boxes and corrections are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from photo_encoder import PhotoEncoder, imagenet_trunk, to_square
from torch import Tensor, nn

from hardmine.bench.detector import Outputs, conv_block, decode_boxes, grid_locations
from hardmine.bench.runs import Schedule, Setup, run_strategy, warm_up
from hardmine.bench.scenarios import Scenario, ScenarioSpec
from hardmine.bench.square_images import SquareImages, read_square_images
from hardmine.bench.strategies import STRATEGIES
from hardmine.bench.training import Examples, Trainer, evaluate
from hardmine.clusters import cluster
from hardmine.config import Config
from hardmine.datasets import load_images, open_image
from hardmine.index import index_from_regions
from hardmine.index.base import Index
from hardmine.mining.targets import TargetRules
from hardmine.records import ImageSet

FOLDS = 4
SIDE = 320
CHANNELS = {2: 40, 4: 112, 6: 320}  # of the trunk's blocks at strides 8, 16 and 32
NUM_VAL = 110
SCHEDULE = Schedule(
    sizes=(437, NUM_VAL, 183),
    epoch_length=874,
    warmup_epochs=2,
    epochs=4,
    side=SIDE,
    learning_rate=2e-3,
)


class PhotoFeatures(NamedTuple):
    """Features of N photos from the frozen parts.

    Attributes:
        maps: For each of ``CHANNELS``: (2, N, C, H, W) float16 of the trunk, unflipped and flipped.
        patches: (N, 13, 13, 512) of the text-aligned encoder.
        whole: (N, 512) of the text-aligned encoder.
    """

    maps: tuple[Tensor, ...]
    patches: Tensor
    whole: Tensor


class BatchFeatures(NamedTuple):
    """Features of a batch: maps of shape (B, C, H, W), and patches as (B, 512, 13, 13)."""

    maps: tuple[Tensor, ...]
    patches: Tensor


@torch.inference_mode()
def extract_features(images: ImageSet, patches: Tensor, whole: Tensor) -> PhotoFeatures:
    """Run the trunk over all photos, unflipped and flipped."""
    trunk = imagenet_trunk().to(memory_format=torch.channels_last)
    parts: list[list[Tensor]] = [[] for _ in CHANNELS]
    for rows in torch.arange(len(images)).split(32):
        squares = torch.stack([to_square(open_image(images.path(int(row))), SIDE) for row in rows])
        levels: list[list[Tensor]] = [[] for _ in CHANNELS]
        for variant in (squares, squares.flip(3)):
            x = trunk.bn1(trunk.conv_stem(variant.contiguous(memory_format=torch.channels_last)))
            for number, block in enumerate(trunk.blocks):
                x = block(x)
                if number in CHANNELS:
                    levels[list(CHANNELS).index(number)].append(x.half().contiguous())
        for part, level in zip(parts, levels, strict=True):
            part.append(torch.stack(level))
    return PhotoFeatures(tuple(torch.cat(part, dim=1) for part in parts), patches, whole)


def run_on_photos(
    split: int, strategies: Sequence[str], photos: Path, features: Path
) -> list[dict[str, Any]]:
    """Run all strategies on one cross-validation split of the photos.

    Args:
        split: Number of the split; also the seed. Four in a row test each photo once.
        strategies: Keys of ``STRATEGIES``.
        photos: Their folder.
        features: File of the ``PhotoFeatures``, saved as a tuple by ``torch.save``.
    """
    torch.set_num_threads(1)  # the processes share the cores
    images = load_images(photos / "images", annotations=photos / "instances.json")
    encoder = PhotoEncoder(photos)
    loaded = PhotoFeatures(*torch.load(features, mmap=True, weights_only=True))
    setup = _setup(split, images, encoder, loaded)
    build = partial(PhotoHead, encoder.encode_texts(images.class_names))
    warmed_up = Trainer(len(images.class_names), side=SIDE, seed=split, build=build)
    warm_up(setup, warmed_up, split, SCHEDULE)
    first_validation = evaluate(warmed_up, setup.val, setup.scenario.val)
    runs = []
    for name in strategies:
        strategy = STRATEGIES[name]
        if strategy.mining is not None:  # the encoder knows bare class names, no templates
            rules = replace(strategy.mining.get("targets", TargetRules()), templates="plain")
            strategy = replace(strategy, mining={**strategy.mining, "targets": rules})
        run = run_strategy(setup, warmed_up.fork(), strategy, split, first_validation, SCHEDULE)
        runs.append({"seed": split, "strategy": name, **run})
    return runs


class PhotoHead(nn.Module):
    """Class scores and boxes at the locations of two grids, from ``BatchFeatures``.

    Args:
        texts: (C, 512) unit vectors of the classes' names.
        num_classes: C.
        side: Side of the square photos in pixels.
        width: Half the channels of all layers.
    """

    locations: Tensor
    strides: Tensor
    texts: Tensor

    def __init__(self, texts: Tensor, num_classes: int, *, side: int, width: int) -> None:
        super().__init__()
        locations, strides = grid_locations(side)
        self.register_buffer("locations", locations, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("texts", texts, persistent=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(count) for count in CHANNELS.values()])
        self.laterals = nn.ModuleList(
            [nn.Conv2d(count, 2 * width, 1) for count in CHANNELS.values()]
        )
        self.towers = nn.ModuleList(
            [
                nn.Sequential(conv_block(2 * width, 2 * width), conv_block(2 * width, 2 * width))
                for _ in range(2)
            ]
        )
        self.classify = nn.Conv2d(2 * width, num_classes, 3, padding=1)
        self.regress = nn.Conv2d(2 * width, 4, 3, padding=1)
        self.objectness = nn.Conv2d(2 * width, 1, 3, padding=1)
        self.similarity_scale = nn.Parameter(torch.tensor(10.0))
        nn.init.zeros_(self.classify.weight)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -5.0)

    def forward(self, features: BatchFeatures) -> Outputs:
        """Detect on a batch, in the precision of the weights."""
        similarity = torch.einsum("bdhw,cd->bchw", features.patches, self.texts)
        similarity = similarity - similarity.mean(1, keepdim=True)
        similarity = similarity * self.similarity_scale.float()
        precision = self.classify.weight.dtype
        fine, middle, coarse = (
            lateral(norm(level).to(precision, memory_format=torch.channels_last))
            for lateral, norm, level in zip(self.laterals, self.norms, features.maps, strict=True)
        )
        middle = middle + F.interpolate(coarse, scale_factor=2)
        fine = fine + F.interpolate(middle, scale_factor=2)
        levels = [tower(level) for tower, level in zip(self.towers, (fine, middle), strict=True)]
        logits = [
            self.classify(level).float()
            + self.objectness(level).float()
            + F.interpolate(similarity, size=level.shape[2:], mode="bilinear")
            for level in levels
        ]
        distances = [self.regress(level).float() for level in levels]
        scores, offsets = (
            torch.cat([part.flatten(2).transpose(1, 2) for part in parts], 1)
            for parts in (logits, distances)
        )
        return Outputs(scores, decode_boxes(self.locations, self.strides, offsets))


@dataclass(frozen=True)
class _PhotoSquares(SquareImages):
    """Photos whose detector inputs are features.

    Attributes:
        features: Of all photos.
        rows: Rows of these photos among all.
    """

    features: PhotoFeatures
    rows: Tensor

    def inputs(self, rows: Tensor, flipped: Tensor | None = None) -> Any:
        variant = torch.zeros_like(rows) if flipped is None else flipped.long()
        photo_rows = self.rows[rows]
        patches = self.features.patches[photo_rows].permute(0, 3, 1, 2)
        return BatchFeatures(
            tuple(level[variant, photo_rows].float() for level in self.features.maps),
            torch.where(variant.bool()[:, None, None, None], patches.flip(3), patches),
        )


def _setup(split: int, images: ImageSet, encoder: PhotoEncoder, features: PhotoFeatures) -> Setup:
    """Split the photos into train, val and test."""
    order = np.random.default_rng(split // FOLDS).permutation(len(images))
    folds = np.array_split(order, FOLDS)
    test = folds.pop(split % FOLDS)
    rest = np.concatenate(folds)
    rows = {"train": np.sort(rest[NUM_VAL:]), "val": np.sort(rest[:NUM_VAL]), "test": np.sort(test)}
    scenario = Scenario(
        name="photos",
        spec=ScenarioSpec("real photos"),
        **{part: images.subset(part_rows) for part, part_rows in rows.items()},
        test_contexts=np.full(len(test), ""),
        index=_index(images, encoder, features, rows["train"]),
        val_index=_index(images, encoder, features, rows["val"]),
        whole_image_index=None,
        whole_image_val_index=None,
        oracle_factors=np.ones(len(rows["train"])),
    )
    squares = {
        part: _PhotoSquares(
            **vars(read_square_images(getattr(scenario, part), SIDE)),
            features=features,
            rows=torch.from_numpy(part_rows),
        )
        for part, part_rows in rows.items()
    }
    return Setup(scenario, encoder, Examples(squares["train"]), squares["val"], squares["test"])


def _index(
    images: ImageSet, encoder: PhotoEncoder, features: PhotoFeatures, rows: npt.NDArray[np.int64]
) -> Index:
    spec = Config().index.clusters
    regions = cluster(features.patches[rows], spec, whole=features.whole[rows])
    counts = np.bincount(regions.image_rows.numpy(), minlength=len(rows))
    return index_from_regions(
        regions.vectors.numpy(),
        np.concatenate([[0], np.cumsum(counts)]),
        ids=images.ids[rows],
        clusters=spec,
        encoder_fingerprint=encoder.fingerprint,
    )

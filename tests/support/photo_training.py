"""Trains a small detector on the real photos: a head over a trunk that knows ImageNet, frozen.

What the trunk sees of every photo is worked out once. Classes start from what the text-aligned
encoder says of the patches; boxes, and what to make of all that, are learned.
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

from hardmine.bench.detector import Answers, boxes_at, conv, places_of
from hardmine.bench.pictures import Pictures, read_pictures
from hardmine.bench.runs import Schedule, Setup, run_strategy, shuffle_through
from hardmine.bench.scenarios import Scenario, Weakness
from hardmine.bench.strategies import STRATEGIES
from hardmine.bench.training import Examples, Training, judge
from hardmine.clusters import cluster
from hardmine.config import Config
from hardmine.datasets import load_images, open_image
from hardmine.index import index_from_regions
from hardmine.index.base import Index
from hardmine.records import ImageSet

FOLDS = 4
SIDE = 320
CHANNELS = {2: 40, 4: 112, 6: 320}  # of the trunk's blocks at strides 8, 16 and 32
VAL = 110
SCHEDULE = Schedule(sizes=(437, VAL, 183), draws=874, warm_epochs=2, epochs=4, side=SIDE, rate=2e-3)


class Seen(NamedTuple):
    """What the frozen parts see of N photos.

    Attributes:
        maps: Of each of ``CHANNELS``: (2, N, C, H, W) float16, as it is and mirrored.
        patches: (N, 13, 13, 512) of the text-aligned encoder.
        whole: (N, 512).
    """

    maps: tuple[Tensor, ...]
    patches: Tensor
    whole: Tensor


class Looks(NamedTuple):
    """The same of a batch: maps, and patches as (B, 512, 13, 13)."""

    maps: tuple[Tensor, ...]
    patches: Tensor


@torch.inference_mode()
def look_at(images: ImageSet, patches: Tensor, whole: Tensor) -> Seen:
    """Run the trunk over all photos, and over all mirrored."""
    trunk = imagenet_trunk().to(memory_format=torch.channels_last)
    parts: list[list[Tensor]] = [[] for _ in CHANNELS]
    for rows in torch.arange(len(images)).split(32):
        squares = torch.stack([to_square(open_image(images.path(int(row))), SIDE) for row in rows])
        levels: list[list[Tensor]] = [[] for _ in CHANNELS]
        for way in (squares, squares.flip(3)):
            x = trunk.bn1(trunk.conv_stem(way.contiguous(memory_format=torch.channels_last)))
            for number, block in enumerate(trunk.blocks):
                x = block(x)
                if number in CHANNELS:
                    levels[list(CHANNELS).index(number)].append(x.half().contiguous())
        for part, level in zip(parts, levels, strict=True):
            part.append(torch.stack(level))
    return Seen(tuple(torch.cat(part, dim=1) for part in parts), patches, whole)


def race_on_photos(split: int, strategies: Sequence[str], photos: Path, seen: Path) -> list[Any]:
    """Runs of all strategies on one of many ways to part the photos, of which four test each once.

    Args:
        split: Which; also the seed.
        strategies: Keys of ``STRATEGIES``.
        photos: Their folder.
        seen: File of what the frozen parts see, as ``torch.save`` wrote it.
    """
    torch.set_num_threads(1)  # one run_scenario a core
    images = load_images(photos / "images", annotations=photos / "instances.json")
    encoder = PhotoEncoder(photos)
    setup = _ring(split, images, encoder, Seen(*torch.load(seen, mmap=True, weights_only=True)))
    build = partial(PhotoHead, encoder.encode_texts(images.class_names))
    warm = Training(len(images.class_names), side=SIDE, seed=split, build=build)
    shuffle_through(setup, warm, split, SCHEDULE)
    first = judge(warm, setup.val, setup.scenario.val)
    runs = []
    for name in strategies:
        strategy = STRATEGIES[name]
        if strategy.mining is not None:  # the encoder knows class names and nothing else
            strategy = replace(strategy, mining={**strategy.mining, "templates": "plain"})
        run = run_strategy(setup, warm.fork(), strategy, split, first, SCHEDULE)
        runs.append({"seed": split, "strategy": name, **run})
    return runs


class PhotoHead(nn.Module):
    """Class scores and boxes at the places of two grids, from ``Looks``.

    Args:
        texts: (C, 512) unit vectors of the classes' names.
        num_classes: C.
        side: Of the square photos, in pixels.
        width: Of all layers.
    """

    places: Tensor
    strides: Tensor
    texts: Tensor

    def __init__(self, texts: Tensor, num_classes: int, *, side: int, width: int) -> None:
        super().__init__()
        places, strides = places_of(side)
        self.register_buffer("places", places, persistent=False)
        self.register_buffer("strides", strides, persistent=False)
        self.register_buffer("texts", texts, persistent=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(count) for count in CHANNELS.values()])
        self.laterals = nn.ModuleList(
            [nn.Conv2d(count, 2 * width, 1) for count in CHANNELS.values()]
        )
        self.towers = nn.ModuleList(
            [nn.Sequential(conv(2 * width, 2 * width), conv(2 * width, 2 * width)) for _ in "ab"]
        )
        self.classify = nn.Conv2d(2 * width, num_classes, 3, padding=1)
        self.frame = nn.Conv2d(2 * width, 4, 3, padding=1)
        self.thing = nn.Conv2d(2 * width, 1, 3, padding=1)  # whatever its class
        self.alike = nn.Parameter(torch.tensor(10.0))
        nn.init.zeros_(self.classify.weight)
        assert self.classify.bias is not None
        nn.init.constant_(self.classify.bias, -5.0)

    def forward(self, looks: Looks) -> Answers:
        """Answer for a batch, in the precision of the weights."""
        alike = torch.einsum("bdhw,cd->bchw", looks.patches, self.texts)
        alike = (alike - alike.mean(1, keepdim=True)) * self.alike.float()
        precision = self.classify.weight.dtype
        fine, middle, coarse = (
            lateral(norm(level).to(precision, memory_format=torch.channels_last))
            for lateral, norm, level in zip(self.laterals, self.norms, looks.maps, strict=True)
        )
        middle = middle + F.interpolate(coarse, scale_factor=2)
        fine = fine + F.interpolate(middle, scale_factor=2)
        levels = [tower(level) for tower, level in zip(self.towers, (fine, middle), strict=True)]
        logits = [
            self.classify(level).float()
            + self.thing(level).float()
            + F.interpolate(alike, size=level.shape[2:], mode="bilinear")
            for level in levels
        ]
        frames = [self.frame(level).float() for level in levels]
        scores, sides = (
            torch.cat([part.flatten(2).transpose(1, 2) for part in parts], 1)
            for parts in (logits, frames)
        )
        return Answers(scores, boxes_at(self.places, self.strides, sides))


@dataclass(frozen=True)
class _SeenPictures(Pictures):
    """Pictures of which the detector gets what frozen parts saw.

    Attributes:
        seen: Of all photos.
        rows: Of these pictures among them.
    """

    seen: Seen
    rows: Tensor

    def look(self, rows: Tensor, mirrored: Tensor | None = None) -> Any:
        way = torch.zeros_like(rows) if mirrored is None else mirrored.long()
        mine = self.rows[rows]
        patches = self.seen.patches[mine].permute(0, 3, 1, 2)
        flipped = way.bool()[:, None, None, None]
        return Looks(
            tuple(level[way, mine].float() for level in self.seen.maps),
            torch.where(flipped, patches.flip(3), patches),
        )


def _ring(split: int, images: ImageSet, encoder: PhotoEncoder, seen: Seen) -> Setup:
    """Part the photos; of each four splits, one after the other tests a fourth."""
    order = np.random.default_rng(split // FOLDS).permutation(len(images))
    folds = np.array_split(order, FOLDS)
    test = folds.pop(split % FOLDS)
    rest = np.concatenate(folds)
    rows = {"train": np.sort(rest[VAL:]), "val": np.sort(rest[:VAL]), "test": np.sort(test)}
    scenario = Scenario(
        name="photos",
        weakness=Weakness("real photos"),
        **{part: images.subset(mine) for part, mine in rows.items()},
        conditions=np.full(len(test), ""),
        index=_index(images, encoder, seen, rows["train"]),
        val_index=_index(images, encoder, seen, rows["val"]),
        whole_index=None,
        told=np.ones(len(rows["train"])),
    )
    pictures = {
        part: _SeenPictures(
            **vars(read_pictures(getattr(scenario, part), SIDE)),
            seen=seen,
            rows=torch.from_numpy(mine),
        )
        for part, mine in rows.items()
    }
    return Setup(scenario, encoder, Examples(pictures["train"]), pictures["val"], pictures["test"])


def _index(
    images: ImageSet, encoder: PhotoEncoder, seen: Seen, rows: npt.NDArray[np.int64]
) -> Index:
    spec = Config().index.clusters
    regions = cluster(seen.patches[rows], spec, whole=seen.whole[rows])
    counts = np.bincount(regions.image_rows.numpy(), minlength=len(rows))
    return index_from_regions(
        regions.vectors.numpy(),
        np.concatenate([[0], np.cumsum(counts)]),
        ids=images.ids[rows],
        clusters=spec,
        encoder_fingerprint=encoder.fingerprint,
    )

"""The data of one scenario, split seed and regime, as a run needs them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.records import ImageSet
from tests.benchmarks.roads.detector import RoadExamples, make_examples
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.splits import (
    CONDITIONS,
    SCENARIOS,
    Split,
    condition_rows,
    make_split,
    training_labels,
)

SIZE = (224, 384)  # height and width of the detector's input
LEARNING_RATE = 2e-3


@dataclass(frozen=True)
class Regime:
    """How often each photo is seen. The number of draws is the same for all strategies.

    Attributes:
        warmup_passes: Uniform passes that all strategies of a seed share.
        rounds: Validations, each with new weights.
        round_passes: Passes a round.
        max_train: Most training photos, so that many passes stay affordable.
    """

    warmup_passes: float
    rounds: int
    round_passes: float
    max_train: int = 2800

    @property
    def passes(self) -> float:
        """How often each photo is seen on average."""
        return self.warmup_passes + self.rounds * self.round_passes

    def progress(self, number: int) -> float:
        """Share of the training that is done before a round, from 1."""
        return (self.warmup_passes + (number - 1) * self.round_passes) / self.passes


REGIMES = {
    "plenty": Regime(warmup_passes=1, rounds=2, round_passes=0.5),
    "usual": Regime(warmup_passes=3, rounds=4, round_passes=1),
    "long": Regime(warmup_passes=3, rounds=3, round_passes=3),
    "scarce": Regime(warmup_passes=16, rounds=4, round_passes=6, max_train=400),
}


@dataclass(frozen=True)
class Setup:
    """Data in memory.

    Attributes:
        scenario: A key of ``SCENARIOS``.
        passes: A key of ``REGIMES``.
        seed: Of the split, the head's first weights, the flips and the draws.
        photos: All photos.
        split: Their rows.
        pixels: (all, H, W, 3) uint8.
        train: Training photos with the labels that the detector learns from.
        examples: The same with targets.
        val: Validation photos.
        test: Test photos.
    """

    scenario: str
    passes: str
    seed: int
    photos: RoadPhotos
    split: Split
    pixels: torch.Tensor
    train: ImageSet
    examples: RoadExamples
    val: ImageSet
    test: ImageSet

    @property
    def regime(self) -> Regime:
        """How often each photo is seen."""
        return REGIMES[self.passes]

    def shows(self, rows: npt.NDArray[np.int64]) -> dict[str, npt.NDArray[np.bool_]]:
        """For each condition, whether each of these photos shows it."""
        attributes = self.photos.attributes
        return {name: condition_rows(name, attributes)[rows] for name in CONDITIONS}


@lru_cache(maxsize=1)
def open_setup(photos: RoadPhotos, scenario: str, passes: str, seed: int) -> Setup:
    """Split the photos and compute the targets. Limits this process to one thread."""
    torch.set_num_threads(1)  # the processes share the cores
    spec = SCENARIOS[scenario]
    num_train = min(spec.num_train, REGIMES[passes].max_train)
    split = make_split(spec, seed, photos.attributes, num_train=num_train)
    pixels = photos.pixels(*SIZE)
    train = training_labels(photos.images, split)
    return Setup(
        scenario=scenario,
        passes=passes,
        seed=seed,
        photos=photos,
        split=split,
        pixels=pixels,
        train=train,
        examples=make_examples(train, pixels, torch.from_numpy(split.train)),
        val=photos.images.subset(split.val),
        test=photos.images.subset(split.test),
    )


def settings_of(scenario: str, passes: str) -> dict[str, Any]:
    """What a result depends on besides seed and strategy, as plain values."""
    spec = asdict(SCENARIOS[scenario])
    del spec["about"]  # words for people
    return {
        "scenario": {"name": scenario, **spec},
        "regime": {"name": passes, **asdict(REGIMES[passes])},
        "size": list(SIZE),
        "learning_rate": LEARNING_RATE,
    }


def settings_hash(scenario: str, passes: str) -> str:
    """A short digest of ``settings_of``."""
    text = json.dumps(settings_of(scenario, passes), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]

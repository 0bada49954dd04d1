"""The uniform passes that all strategies of a split share, trained once and kept on disk."""

from __future__ import annotations

import fcntl
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hardmine.detections import Detections
from hardmine.sampler import HardMiningSampler
from tests.benchmarks.roads.setup import LEARNING_RATE, SIZE, Setup, settings_hash
from tests.benchmarks.roads.training import RoadTrainer


def warmed_up(setup: Setup, *, rounds: int = 0) -> tuple[RoadTrainer, Detections]:
    """Load or train the warmed-up detector, and what it finds on the validation photos.

    Args:
        setup: Of the split.
        rounds: Uniform rounds that follow the warm-up.
    """
    path = warmup_path(setup.photos.work, setup.scenario, setup.passes, setup.seed, rounds)
    path.parent.mkdir(parents=True, exist_ok=True)
    trainer = new_trainer(setup)
    with _locked(path.with_suffix(".lock")):
        if not path.exists():
            if rounds:
                trainer, _ = warmed_up(setup)
                sampler = round_sampler(setup)
                for number in range(1, rounds + 1):
                    train_round(setup, trainer, number, np.fromiter(sampler, np.int64))
            else:
                _train(setup, trainer)
            found = trainer.detect_photos(
                setup.pixels, torch.from_numpy(setup.split.val), setup.val.sizes
            )
            arrays = {key: torch.from_numpy(value) for key, value in vars(found).items()}
            state = {"trainer": trainer.state_dict(), "found": arrays}
            torch.save(state, path.with_suffix(".part"))
            path.with_suffix(".part").rename(path)
    state = torch.load(path, weights_only=True)
    trainer.load_state_dict(state["trainer"])
    return trainer, Detections(**{key: value.numpy() for key, value in state["found"].items()})


def warmup_path(work: Path, scenario: str, passes: str, seed: int, rounds: int = 0) -> Path:
    """Where the warmed-up detector of a split is kept."""
    more = f"-{rounds}" if rounds else ""
    return (
        work / "warmup" / f"{scenario}-{passes}-{seed}{more}-{settings_hash(scenario, passes)}.pt"
    )


def round_sampler(setup: Setup, *, rounds: int = 0) -> HardMiningSampler:
    """The sampler of the rounds, after some of them. Its draws are not those of the warm-up."""
    regime, num_train = setup.regime, len(setup.train)
    sampler = HardMiningSampler(
        num_train, epoch_length=round(regime.round_passes * num_train), seed=setup.seed
    )
    sampler.set_epoch(math.ceil(regime.warmup_passes) + rounds)
    return sampler


def train_round(
    setup: Setup, trainer: RoadTrainer, number: int, rows: npt.NDArray[np.int64]
) -> None:
    """Train one round, from 1; the learning rate falls over all rounds along a cosine."""
    trainer.train(
        setup.examples,
        torch.from_numpy(rows),
        lambda share: (
            LEARNING_RATE
            * (0.5 + 0.5 * math.cos(math.pi * (number - 1 + share) / setup.regime.rounds))
        ),
    )


def new_trainer(setup: Setup) -> RoadTrainer:
    """A detector that has learned nothing yet, but for its trunk."""
    trunk = setup.photos.roads / "detector" / "trunk.npz"
    return RoadTrainer(len(setup.train.class_names), trunk=trunk, size=SIZE, seed=setup.seed)


def _train(setup: Setup, trainer: RoadTrainer) -> None:
    """Train by plain shuffling, with a rising learning rate."""
    rows = _warmup_rows(len(setup.train), setup.regime.warmup_passes, setup.seed)
    trainer.train(
        setup.examples,
        torch.from_numpy(rows),
        lambda share: LEARNING_RATE * min(1.0, 0.01 + 10 * share),
    )


def _warmup_rows(num_images: int, passes: float, seed: int) -> npt.NDArray[np.int64]:
    sampler = HardMiningSampler(num_images, seed=seed)
    rows: list[int] = []
    for epoch in range(int(np.ceil(passes))):
        sampler.set_epoch(epoch)
        rows.extend(sampler)
    return np.array(rows[: round(passes * num_images)])


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time in; a process that ends lets go."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield

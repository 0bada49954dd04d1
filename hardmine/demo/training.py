"""The demo's training: a small detector, mined between epochs, and the same without mining."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hardmine.bench.pictures import read_pictures
from hardmine.bench.training import Examples, Training, judge
from hardmine.detections import Detections
from hardmine.encoders.base import Encoder
from hardmine.history.rounds import Round
from hardmine.index.base import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

CONTEXTS = ("at night", "in the rain", "in fog")
_RATE = 4e-3


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        rounds: Of mining, in order.
        before: (C,) AP when mining began.
        mined: (C,) AP of the detector that was mined for.
        plain: (C,) AP of its twin, which had the same draws without mining.
        detections: Of the mined one on the validation images.
    """

    rounds: list[Round]
    before: npt.NDArray[np.float64]
    mined: npt.NDArray[np.float64]
    plain: npt.NDArray[np.float64]
    detections: Detections


def train_with_mining(
    train: ImageSet,
    val: ImageSet,
    index: Index,
    val_index: Index,
    encoder: Encoder,
    *,
    rounds: Path,
    seed: int = 0,
    plain_epochs: int = 4,
    mined_epochs: int = 4,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Trained:
    """Train by plain shuffling, then go on twice from there: with mining, and without.

    Args:
        train: Images to learn from.
        val: Images to validate on.
        index: Of ``train``.
        val_index: Of ``val``.
        encoder: The one that made the indexes.
        rounds: File for the rounds; a new one is begun.
        seed: Of the detector and the draws.
        plain_epochs: Before mining begins; an epoch goes over half of the images.
        mined_epochs: With a round before each.
        progress: Called with steps done and all steps.
    """
    examples, seen = Examples(read_pictures(train, 128)), read_pictures(val, 128)
    training = Training(len(train.class_names), seed=seed)
    draws = max(len(train) // 2, training.batch_size)
    sampler, twin_sampler = (
        HardMiningSampler(len(train), epoch_length=draws, seed=seed) for _ in range(2)
    )
    rounds.unlink(missing_ok=True)
    miner = HardMiner(
        index,
        sampler,
        encoder=encoder,
        images=train,
        validation=ValidationSet(val, val_index),
        contexts=CONTEXTS,
        rounds=rounds,
        strict=True,
    )
    steps = draws // training.batch_size * (plain_epochs + 2 * mined_epochs)
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        progress(done, steps)

    def learn(pupil: Training, draws: HardMiningSampler, epoch: int) -> None:
        draws.set_epoch(epoch)
        late = epoch - plain_epochs
        pupil.learn(
            examples,
            torch.tensor(list(draws)),
            lambda share: _rate(epoch + share, (late + share) / mined_epochs),
            on_step=step,
        )

    for epoch in range(plain_epochs):
        learn(training, sampler, epoch)
    twin = training.fork()
    before, found = judge(training, seen, val)
    ap, mined_rounds = before, []
    for epoch in range(plain_epochs, plain_epochs + mined_epochs):
        metrics = dict(zip(train.class_names, ap.tolist(), strict=True))
        mined_rounds.append(miner.step(metrics, val_detections=found))
        learn(training, sampler, epoch)
        learn(twin, twin_sampler, epoch)
        ap, found = judge(training, seen, val)
    return Trained(mined_rounds, before, ap, judge(twin, seen, val)[0], found)


def _rate(epoch: float, late: float) -> float:
    """Learning rate: up within half an epoch, level, then down to 0 as ``late`` goes to 1."""
    return _RATE * min(1.0, 0.01 + 2 * epoch) * (0.5 + 0.5 * math.cos(math.pi * max(late, 0.0)))

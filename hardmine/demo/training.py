"""The demo's training: a small detector, trained on with mining and without."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from hardmine.bench.square_images import read_square_images
from hardmine.bench.training import Examples, Trainer, evaluate
from hardmine.detections import Detections
from hardmine.encoders import Encoder
from hardmine.history.rounds import Round
from hardmine.index.base import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

CONTEXTS = ("at night", "in the rain", "in fog")
_SIDE = 128  # of the detector's square inputs, in pixels
_LEARNING_RATE = 4e-3


@dataclass(frozen=True)
class TrainingResult:
    """What the training gave.

    Attributes:
        rounds: The rounds of mining, in order.
        ap_before: (C,) validation AP when mining began.
        ap_mined: (C,) validation AP of the detector trained on with mining.
        ap_plain: (C,) validation AP of its twin, trained on with as many draws without mining.
        detections: Of the mined detector on the validation images.
    """

    rounds: list[Round]
    ap_before: npt.NDArray[np.float64]
    ap_mined: npt.NDArray[np.float64]
    ap_plain: npt.NDArray[np.float64]
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
) -> TrainingResult:
    """Train by plain shuffling, then continue twice from there: with mining and without.

    An epoch draws half as many images as there are.

    Args:
        train: Training images.
        val: Validation images.
        index: Of ``train``.
        val_index: Of ``val``.
        encoder: The one that made the indexes.
        rounds: File for the rounds; an older file is replaced.
        seed: Of the detector and the draws.
        plain_epochs: Epochs before mining begins.
        mined_epochs: Epochs with a round of mining before each.
        progress: Called with the number of steps done and the total.
    """
    examples, val_squares = (
        Examples(read_square_images(train, _SIDE)),
        read_square_images(val, _SIDE),
    )
    trainer = Trainer(len(train.class_names), side=_SIDE, seed=seed)
    epoch_length = max(len(train) // 2, trainer.batch_size)
    sampler, plain_sampler = (
        HardMiningSampler(len(train), epoch_length=epoch_length, seed=seed) for _ in range(2)
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
    total = epoch_length // trainer.batch_size * (plain_epochs + 2 * mined_epochs)
    done = 0

    def count_step() -> None:
        nonlocal done
        done += 1
        progress(done, total)

    def train_epoch(trainer: Trainer, sampler: HardMiningSampler, epoch: int) -> None:
        sampler.set_epoch(epoch)
        since_mining = epoch - plain_epochs
        trainer.train(
            examples,
            torch.tensor(list(sampler)),
            lambda share: _learning_rate(epoch + share, (since_mining + share) / mined_epochs),
            on_step=count_step,
        )

    for epoch in range(plain_epochs):
        train_epoch(trainer, sampler, epoch)
    plain = trainer.fork()
    ap_before, detections = evaluate(trainer, val_squares, val)
    ap, mined_rounds = ap_before, []
    for epoch in range(plain_epochs, plain_epochs + mined_epochs):
        metrics = dict(zip(train.class_names, ap.tolist(), strict=True))
        # The learning rate falls while mining: the last quarter is that of these epochs.
        epochs = plain_epochs + mined_epochs
        epochs_done = epochs * (epoch - plain_epochs) / mined_epochs
        mined_rounds.append(
            miner.step(metrics, val_detections=detections, epochs_done=epochs_done, epochs=epochs)
        )
        train_epoch(trainer, sampler, epoch)
        train_epoch(plain, plain_sampler, epoch)
        ap, detections = evaluate(trainer, val_squares, val)
    ap_plain, _ = evaluate(plain, val_squares, val)
    return TrainingResult(mined_rounds, ap_before, ap, ap_plain, detections)


def _learning_rate(epoch: float, mined_share: float) -> float:
    """Rises during half an epoch, stays, and falls to 0 along a cosine while mining.

    Args:
        epoch: Epochs done, with fraction.
        mined_share: Share of the epochs with mining that is done; negative before.
    """
    decay = 0.5 + 0.5 * math.cos(math.pi * max(mined_share, 0.0))
    return _LEARNING_RATE * min(1.0, 0.01 + 2 * epoch) * decay

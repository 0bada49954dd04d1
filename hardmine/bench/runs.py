"""Runs strategies of a scenario side by side and records each run as a line of JSON.

Strategies can differ only after the first validation. So the first epochs, by plain shuffling, are
trained once a seed, and all strategies of that seed continue from the same warmed-up detector.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardmine.bench.scenarios import SCENARIOS, SPLITS, Scenario, make_scenario
from hardmine.bench.square_images import SquareImages, read_square_images
from hardmine.bench.strategies import STRATEGIES, Strategy, StrategySampler
from hardmine.bench.training import Examples, Trainer, evaluate
from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.encoders import Encoder, load_encoder
from hardmine.sampler import HardMiningSampler


@dataclass(frozen=True)
class Schedule:
    """Sizes and lengths of a training, the same for every strategy.

    Attributes:
        sizes: Images of train, val and test.
        epoch_length: Draws an epoch. Fewer than there are images, as where data are plentiful and
            time is not.
        warmup_epochs: Epochs of plain shuffling that all strategies of a seed share.
        epochs: Epochs by each strategy, a validation before each.
        side: Side of the square images in pixels.
        width: Channels of the detector's first stage.
        learning_rate: The highest one.
        scene_seed: Seed of the generated scenes.
    """

    sizes: tuple[int, int, int] = (9000, 1000, 1500)
    epoch_length: int = 3000
    warmup_epochs: int = 5
    epochs: int = 4
    side: int = 128
    width: int = 32
    learning_rate: float = 4e-3
    scene_seed: int = 53


@dataclass(frozen=True)
class Setup:
    """A scenario with its images in memory.

    Attributes:
        scenario: The data and their indexes.
        encoder: The one that made the indexes.
        examples: Training images with their targets.
        val: Validation images.
        test: Test images.
    """

    scenario: Scenario
    encoder: Encoder
    examples: Examples
    val: SquareImages
    test: SquareImages


@lru_cache(maxsize=1)
def open_setup(name: str, work: Path, schedule: Schedule, *, whole_image: bool = False) -> Setup:
    """Make or load a scenario and read its images. Limits this process to one thread."""
    torch.set_num_threads(1)  # the processes share the cores
    encoder = load_encoder("tiny")
    scenario = make_scenario(
        name,
        work / name,
        encoder,
        sizes=schedule.sizes,
        seed=schedule.scene_seed,
        whole_image=whole_image,
    )
    train, val, test = (
        read_square_images(getattr(scenario, split), schedule.side) for split in SPLITS
    )
    return Setup(scenario, encoder, Examples(train), val, test)


def run_strategies(
    scenario: str,
    seed: int,
    strategies: Sequence[str],
    *,
    work: Path,
    results: Path,
    schedule: Schedule,
) -> None:
    """Run strategies of one scenario and seed, except for runs that are already recorded.

    Args:
        scenario: A key of ``SCENARIOS``.
        seed: Of the detector's first weights, the random flips and the draws.
        strategies: Keys of ``STRATEGIES``.
        work: Folder of the scenarios and the warmed-up detectors.
        results: File that gets one line of JSON a run.
        schedule: The same for all strategies.
    """
    recorded = {
        (run["scenario"], run["seed"], run["strategy"]) for run in read_runs(results, schedule)
    }
    todo = [name for name in strategies if (scenario, seed, name) not in recorded]
    if not todo:
        return
    whole_image = any(STRATEGIES[name].whole_image for name in strategies)
    setup = open_setup(scenario, work, schedule, whole_image=whole_image)
    warmed_up = _load_or_warm_up(setup, seed, work / scenario / f"warmup{schedule.width}", schedule)
    first_validation = evaluate(warmed_up, setup.val, setup.scenario.val)
    for name in todo:
        outcome = run_strategy(
            setup, warmed_up.fork(), STRATEGIES[name], seed, first_validation, schedule
        )
        run = {
            "scenario": scenario,
            "seed": seed,
            "strategy": name,
            "settings": _settings(scenario, schedule),
            **outcome,
        }
        with results.open("a") as file:
            file.write(json.dumps(run) + "\n")


def read_runs(results: Path, schedule: Schedule) -> list[dict[str, Any]]:
    """Read the recorded runs that had this schedule and the present scenarios."""
    if not results.exists():
        return []
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    settings = {name: json.loads(json.dumps(_settings(name, schedule))) for name in SCENARIOS}
    return [run for run in runs if run["settings"] == settings.get(run["scenario"])]


def _settings(scenario: str, schedule: Schedule) -> dict[str, Any]:
    spec = SCENARIOS[scenario]
    epochs = schedule.epochs * spec.times_epochs
    return {**asdict(schedule), "epochs": epochs, "data": spec.data_settings()}


def _load_or_warm_up(setup: Setup, seed: int, folder: Path, schedule: Schedule) -> Trainer:
    num_classes = len(setup.scenario.train.class_names)
    trainer = Trainer(num_classes, side=schedule.side, width=schedule.width, seed=seed)
    path = folder / f"{seed}.pt"
    if path.exists():
        trainer.load_state_dict(torch.load(path, weights_only=True))
        return trainer
    warm_up(setup, trainer, seed, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(trainer.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return trainer


def warm_up(setup: Setup, trainer: Trainer, seed: int, schedule: Schedule) -> None:
    """Train by plain shuffling, with a rising learning rate: the epochs all strategies share."""
    sampler = HardMiningSampler(
        len(setup.scenario.train), epoch_length=schedule.epoch_length, seed=seed
    )
    rows: list[int] = []
    for epoch in range(schedule.warmup_epochs):
        sampler.set_epoch(epoch)
        rows.extend(sampler)
    trainer.train(
        setup.examples,
        torch.tensor(rows),
        lambda share: schedule.learning_rate * min(1.0, 0.01 + 10 * share),
    )


def run_strategy(
    setup: Setup,
    trainer: Trainer,
    strategy: Strategy,
    seed: int,
    first_validation: tuple[np.ndarray, Detections],
    schedule: Schedule,
) -> dict[str, Any]:
    """Train a warmed-up detector on one strategy's draws, then test it.

    Args:
        setup: Data.
        trainer: Warmed up; changed in place.
        strategy: How to draw.
        seed: Of the draws.
        first_validation: AP of each class and detections of the warmed-up detector on val.
        schedule: How long to train.

    Returns:
        Test AP, validation AP, draws of each class and times, as plain values.
    """
    scenario = setup.scenario
    started = time.perf_counter()
    sampler = StrategySampler(
        strategy,
        scenario,
        setup.encoder,
        epoch_length=schedule.epoch_length,
        epoch=schedule.warmup_epochs,
        seed=seed,
    )
    epochs = schedule.epochs * scenario.spec.times_epochs
    all_epochs = schedule.warmup_epochs + epochs
    first = 3 * epochs // 4 if strategy.late else 0
    draws = np.zeros(len(scenario.train), np.int64)
    val_ap = []
    for epoch in range(epochs):
        if sampler.needs_validation and epoch >= first:
            ap, found = (
                first_validation if epoch == 0 else evaluate(trainer, setup.val, scenario.val)
            )
            val_ap.append(round(float(np.nanmean(ap)), 5))
            # The learning rate falls over the strategy's epochs: the last quarter is theirs.
            done = all_epochs * epoch / epochs
            sampler.update(ap, found, epochs_done=done, epochs=all_epochs)
        rows = sampler.draw_epoch()
        draws += np.bincount(rows.numpy(), minlength=len(draws))
        start = epoch / epochs
        trainer.train(
            setup.examples,
            rows,
            lambda share, start=start: (
                schedule.learning_rate  # type: ignore[misc]
                * (0.5 + 0.5 * math.cos(math.pi * (start + share / epochs)))
            ),
        )
    seconds = time.perf_counter() - started
    return {
        **_test_ap(setup, trainer.detect(setup.test)),
        "warmup_ap": _rounded(first_validation[0]),
        "val_ap": val_ap,
        # Of each object of a class, relative to the mean image.
        "class_draws": _rounded(
            np.asarray(scenario.train.class_counts.T @ draws).ravel()
            / np.maximum(np.asarray(scenario.train.class_counts.sum(axis=0)).ravel(), 1)
            * (len(scenario.train) / (epochs * schedule.epoch_length))
        ),
        "seconds": round(seconds, 2),
        "mining_seconds": round(sampler.mining_seconds, 2),
    }


def _test_ap(setup: Setup, found: Detections) -> dict[str, Any]:
    """AP of each class on all test images, and on those inside and outside the weak context."""
    inside = setup.scenario.test_contexts == setup.scenario.spec.weak_context
    weights = np.stack([np.ones(len(inside)), inside, ~inside]).astype(np.float64)
    matches = match_detections(setup.scenario.test, found)
    ap, ap_inside, ap_outside = average_precision_from_matches(matches, weights)
    by_class = {"ap": _rounded(ap)}
    if inside.any():
        by_class |= {"ap_inside": _rounded(ap_inside), "ap_outside": _rounded(ap_outside)}
    return by_class


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 5) for value in values]

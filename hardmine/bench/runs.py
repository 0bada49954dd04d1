"""Runs the strategies of a scenario side by side: one warm-up a seed, then each strategy goes on from there.

What an strategy has to say can differ only after a validation, so the first part is trained once, by
plain shuffling, and every strategy of a seed starts from the same weights with the same luck.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hardmine.bench.pictures import Pictures, read_pictures
from hardmine.bench.scenarios import SCENARIOS, SPLITS, Scenario, make_scenario
from hardmine.bench.strategies import STRATEGIES, Drawer, Strategy
from hardmine.bench.training import Examples, Training, judge
from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.encoders import Encoder, load_encoder
from hardmine.sampler import HardMiningSampler


@dataclass(frozen=True)
class Schedule:
    """How long and on how much a detector is trained, the same for every strategy.

    Attributes:
        sizes: Images of train, val and test.
        draws: Of an epoch; fewer than there are images, as where data is plenty and time is not.
        warm_epochs: Epochs of plain shuffling before the strategies part.
        epochs: Epochs of each strategy, a validation before each.
        side: Of the pictures, in pixels.
        width: Channels of the detector's first stage.
        rate: Highest learning rate.
        world_seed: Names the series of scenes.
    """

    sizes: tuple[int, int, int] = (9000, 1000, 1500)
    draws: int = 3000
    warm_epochs: int = 5
    epochs: int = 4
    side: int = 128
    width: int = 32
    rate: float = 4e-3
    world_seed: int = 53


@dataclass(frozen=True)
class Setup:
    """A scenario with its pictures in memory."""

    scenario: Scenario
    encoder: Encoder
    examples: Examples
    val: Pictures
    test: Pictures


@lru_cache(maxsize=1)
def open_setup(name: str, work: Path, schedule: Schedule, *, whole: bool = False) -> Setup:
    """Make a scenario, or take the one that is there, and read its pictures."""
    torch.set_num_threads(1)  # one run_scenario a core
    encoder = load_encoder("tiny")
    scenario = make_scenario(
        name, work / name, encoder, sizes=schedule.sizes, seed=schedule.world_seed, whole=whole
    )
    train, val, test = (read_pictures(getattr(scenario, split), schedule.side) for split in SPLITS)
    return Setup(scenario, encoder, Examples(train), val, test)


def run_scenario(
    name: str,
    seed: int,
    strategies: Sequence[str],
    *,
    work: Path,
    results: Path,
    schedule: Schedule,
    on_run: Callable[[dict[str, Any]], None] = lambda run: None,
) -> None:
    """Run strategies of one scenario and seed, those that are not on record yet.

    Args:
        name: Of the scenario.
        seed: Of the detector's first weights, its luck and the draws.
        strategies: Keys of ``STRATEGIES``.
        work: Folder of the scenarios and the warmed-up detectors.
        results: File that gets a line of JSON a run.
        schedule: The same for all.
        on_run: Called with each run, also with those on record.
    """
    there = {
        (run["scenario"], run["seed"], run["strategy"]): run for run in read_runs(results, schedule)
    }
    todo = [strategy for strategy in strategies if (name, seed, strategy) not in there]
    for strategy in strategies:
        if strategy not in todo:
            on_run(there[name, seed, strategy])
    if not todo:
        return
    setup = open_setup(
        name, work, schedule, whole=any(STRATEGIES[strategy].whole for strategy in strategies)
    )
    warm = _warm_up(setup, seed, work / name / "warm", schedule)
    first = judge(warm, setup.val, setup.scenario.val)
    for strategy in todo:
        run = run_strategy(setup, warm.fork(), STRATEGIES[strategy], seed, first, schedule)
        run = {
            "scenario": name,
            "seed": seed,
            "strategy": strategy,
            "settings": _settings(name, schedule),
            **run,
        }
        with results.open("a") as file:
            file.write(json.dumps(run) + "\n")
        on_run(run)


def read_runs(results: Path, schedule: Schedule) -> list[dict[str, Any]]:
    """The runs on record that had this schedule and these scenarios."""
    if not results.exists():
        return []
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    wanted = {name: json.loads(json.dumps(_settings(name, schedule))) for name in SCENARIOS}
    return [run for run in runs if run["settings"] == wanted.get(run["scenario"])]


def _settings(name: str, schedule: Schedule) -> dict[str, Any]:
    return {**asdict(schedule), "scenes": SCENARIOS[name].scenes()}


def _warm_up(setup: Setup, seed: int, folder: Path, schedule: Schedule) -> Training:
    scenario = setup.scenario
    training = Training(
        len(scenario.train.class_names), side=schedule.side, width=schedule.width, seed=seed
    )
    path = folder / f"{seed}.pt"
    if path.exists():
        training.load_state_dict(torch.load(path, weights_only=True))
        return training
    shuffle_through(setup, training, seed, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(training.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return training


def shuffle_through(setup: Setup, training: Training, seed: int, schedule: Schedule) -> None:
    """Train by plain shuffling, with a rising rate: the part that all strategies share."""
    sampler = HardMiningSampler(len(setup.scenario.train), epoch_length=schedule.draws, seed=seed)
    rows: list[int] = []
    for epoch in range(schedule.warm_epochs):
        sampler.set_epoch(epoch)
        rows.extend(sampler)
    training.learn(
        setup.examples,
        torch.tensor(rows),
        lambda share: schedule.rate * min(1.0, 0.01 + 10 * share),
    )


def run_strategy(
    setup: Setup,
    training: Training,
    strategy: Strategy,
    seed: int,
    first: tuple[np.ndarray, Detections],
    schedule: Schedule,
) -> dict[str, Any]:
    """Go on with a warmed-up detector by one way of drawing, and test it at the end.

    Args:
        setup: Where.
        training: Warmed up; it is changed.
        strategy: How rows are drawn.
        seed: Of the draws.
        first: AP of each class and detections of the warmed-up one on the validation images.
        schedule: How long.
    """
    scenario = setup.scenario
    begun = time.perf_counter()
    drawer = Drawer(
        strategy,
        scenario,
        setup.encoder,
        draws=schedule.draws,
        epoch=schedule.warm_epochs,
        seed=seed,
    )
    drawn = np.zeros(len(scenario.train), np.int64)
    val_ap = []
    for epoch in range(schedule.epochs):
        if drawer.looks:
            ap, found = first if epoch == 0 else judge(training, setup.val, scenario.val)
            val_ap.append(round(float(np.nanmean(ap)), 5))
            drawer.see(ap, found)
        rows = drawer.draw()
        drawn += np.bincount(rows.numpy(), minlength=len(drawn))
        start = epoch / schedule.epochs
        training.learn(
            setup.examples,
            rows,
            lambda share, start=start: (
                schedule.rate  # type: ignore[misc]
                * (0.5 + 0.5 * math.cos(math.pi * (start + share / schedule.epochs)))
            ),
        )
    seconds = time.perf_counter() - begun
    return {
        **_score(setup, training.detect(setup.test)),
        "fork_ap": _rounded(first[0]),
        "val_ap": val_ap,
        "class_draws": _rounded(
            np.asarray(scenario.train.class_counts.T @ drawn).ravel()
            / np.maximum(np.asarray(scenario.train.class_counts.sum(axis=0)).ravel(), 1)
            * (len(scenario.train) / (schedule.epochs * schedule.draws))
        ),
        "seconds": round(seconds, 2),
        "mining_seconds": round(drawer.seconds, 2),
    }


def _score(setup: Setup, found: Detections) -> dict[str, Any]:
    """AP of each class on all of test, and apart on the weak condition and the others."""
    inside = setup.scenario.conditions == setup.scenario.weakness.weak_condition
    weights = np.stack([np.ones(len(inside)), inside, ~inside]).astype(np.float64)
    matches = match_detections(setup.scenario.test, found)
    every, within, without = average_precision_from_matches(matches, weights)
    score = {"ap": _rounded(every)}
    if inside.any():
        score |= {"ap_inside": _rounded(within), "ap_outside": _rounded(without)}
    return score


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 5) for value in values]

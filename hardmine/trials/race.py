"""Runs the arms of a world side by side: one warm-up a seed, then each arm goes on from there.

What an arm has to say can differ only after a validation, so the first part is trained once, by
plain shuffling, and every arm of a seed starts from the same weights with the same luck.
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

from hardmine.encoders import Encoder, load_encoder
from hardmine.evaluation.detection_ap import average_precision_from_matches
from hardmine.evaluation.detections import Detections, match_detections
from hardmine.sampler import HardMiningSampler
from hardmine.trials.arms import ARMS, Arm, Drawer
from hardmine.trials.pictures import Pictures, read_pictures
from hardmine.trials.training import Lessons, Training, judge
from hardmine.trials.worlds import SPLITS, WEAKNESSES, World, make_world


@dataclass(frozen=True)
class Schedule:
    """How long and on how much a detector is trained, the same for every arm.

    Attributes:
        sizes: Images of train, val and test.
        draws: Of an epoch; fewer than there are images, as where data is plenty and time is not.
        warm_epochs: Epochs of plain shuffling before the arms part.
        epochs: Epochs of each arm, a validation before each.
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
class Ring:
    """A world with its pictures in memory."""

    world: World
    encoder: Encoder
    lessons: Lessons
    val: Pictures
    test: Pictures


@lru_cache(maxsize=1)
def open_ring(name: str, work: Path, schedule: Schedule, *, whole: bool = False) -> Ring:
    """Make a world, or take the one that is there, and read its pictures."""
    torch.set_num_threads(1)  # one race a core
    encoder = load_encoder("tiny")
    world = make_world(
        name, work / name, encoder, sizes=schedule.sizes, seed=schedule.world_seed, whole=whole
    )
    train, val, test = (read_pictures(getattr(world, split), schedule.side) for split in SPLITS)
    return Ring(world, encoder, Lessons(train), val, test)


def race(
    name: str,
    seed: int,
    arms: Sequence[str],
    *,
    work: Path,
    results: Path,
    schedule: Schedule,
    on_run: Callable[[dict[str, Any]], None] = lambda run: None,
) -> None:
    """Run arms of one world and seed, those that are not on record yet.

    Args:
        name: Of the world.
        seed: Of the detector's first weights, its luck and the draws.
        arms: Keys of ``ARMS``.
        work: Folder of the worlds and the warmed-up detectors.
        results: File that gets a line of JSON a run.
        schedule: The same for all.
        on_run: Called with each run, also with those on record.
    """
    there = {(run["world"], run["seed"], run["arm"]): run for run in read_runs(results, schedule)}
    todo = [arm for arm in arms if (name, seed, arm) not in there]
    for arm in arms:
        if arm not in todo:
            on_run(there[name, seed, arm])
    if not todo:
        return
    ring = open_ring(name, work, schedule, whole=any(ARMS[arm].whole for arm in arms))
    warm = _warm_up(ring, seed, work / name / "warm", schedule)
    first = judge(warm, ring.val, ring.world.val)
    for arm in todo:
        run = run_arm(ring, warm.fork(), ARMS[arm], seed, first, schedule)
        run = {
            "world": name,
            "seed": seed,
            "arm": arm,
            "settings": _settings(name, schedule),
            **run,
        }
        with results.open("a") as file:
            file.write(json.dumps(run) + "\n")
        on_run(run)


def read_runs(results: Path, schedule: Schedule) -> list[dict[str, Any]]:
    """The runs on record that had this schedule and these worlds."""
    if not results.exists():
        return []
    runs = [json.loads(line) for line in results.read_text().splitlines()]
    wanted = {name: json.loads(json.dumps(_settings(name, schedule))) for name in WEAKNESSES}
    return [run for run in runs if run["settings"] == wanted.get(run["world"])]


def _settings(name: str, schedule: Schedule) -> dict[str, Any]:
    return {**asdict(schedule), "scenes": WEAKNESSES[name].scenes()}


def _warm_up(ring: Ring, seed: int, folder: Path, schedule: Schedule) -> Training:
    world = ring.world
    training = Training(
        len(world.train.class_names), side=schedule.side, width=schedule.width, seed=seed
    )
    path = folder / f"{seed}.pt"
    if path.exists():
        training.load_state_dict(torch.load(path, weights_only=True))
        return training
    shuffle_through(ring, training, seed, schedule)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(training.state_dict(), path.with_suffix(".part"))
    path.with_suffix(".part").rename(path)
    return training


def shuffle_through(ring: Ring, training: Training, seed: int, schedule: Schedule) -> None:
    """Train by plain shuffling, with a rising rate: the part that all arms share."""
    sampler = HardMiningSampler(len(ring.world.train), epoch_length=schedule.draws, seed=seed)
    rows: list[int] = []
    for epoch in range(schedule.warm_epochs):
        sampler.set_epoch(epoch)
        rows.extend(sampler)
    training.learn(
        ring.lessons, torch.tensor(rows), lambda share: schedule.rate * min(1.0, 0.01 + 10 * share)
    )


def run_arm(
    ring: Ring,
    training: Training,
    arm: Arm,
    seed: int,
    first: tuple[np.ndarray, Detections],
    schedule: Schedule,
) -> dict[str, Any]:
    """Go on with a warmed-up detector by one way of drawing, and test it at the end.

    Args:
        ring: Where.
        training: Warmed up; it is changed.
        arm: How rows are drawn.
        seed: Of the draws.
        first: AP of each class and detections of the warmed-up one on the validation images.
        schedule: How long.
    """
    world = ring.world
    begun = time.perf_counter()
    drawer = Drawer(
        arm,
        world,
        ring.encoder,
        draws=schedule.draws,
        epoch=schedule.warm_epochs,
        seed=seed,
    )
    drawn = np.zeros(len(world.train), np.int64)
    val_ap = []
    for epoch in range(schedule.epochs):
        if drawer.looks:
            ap, found = first if epoch == 0 else judge(training, ring.val, world.val)
            val_ap.append(round(float(np.nanmean(ap)), 5))
            drawer.see(ap, found)
        rows = drawer.draw()
        drawn += np.bincount(rows.numpy(), minlength=len(drawn))
        start = epoch / schedule.epochs
        training.learn(
            ring.lessons,
            rows,
            lambda share, start=start: (
                schedule.rate  # type: ignore[misc]
                * (0.5 + 0.5 * math.cos(math.pi * (start + share / schedule.epochs)))
            ),
        )
    seconds = time.perf_counter() - begun
    return {
        **_score(ring, training.detect(ring.test)),
        "fork_ap": _rounded(first[0]),
        "val_ap": val_ap,
        "class_draws": _rounded(
            np.asarray(world.train.class_counts.T @ drawn).ravel()
            / np.maximum(np.asarray(world.train.class_counts.sum(axis=0)).ravel(), 1)
            * (len(world.train) / (schedule.epochs * schedule.draws))
        ),
        "seconds": round(seconds, 2),
        "mining_seconds": round(drawer.seconds, 2),
    }


def _score(ring: Ring, found: Detections) -> dict[str, Any]:
    """AP of each class on all of test, and apart on the weak condition and the others."""
    inside = ring.world.conditions == ring.world.weakness.weak_condition
    weights = np.stack([np.ones(len(inside)), inside, ~inside]).astype(np.float64)
    matches = match_detections(ring.world.test, found)
    every, within, without = average_precision_from_matches(matches, weights)
    score = {"ap": _rounded(every)}
    if inside.any():
        score |= {"ap_inside": _rounded(within), "ap_outside": _rounded(without)}
    return score


def _rounded(values: np.ndarray) -> list[float | None]:
    return [None if np.isnan(value) else round(float(value), 5) for value in values]

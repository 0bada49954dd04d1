"""One run: a scenario, a regime, a split seed and a strategy, recorded as one line of JSON."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.sampler import HardMiningSampler
from tests.benchmarks.roads.judge import judge
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.setup import Setup, open_setup, settings_hash
from tests.benchmarks.roads.splits import SCENARIOS
from tests.benchmarks.roads.strategies import STRATEGIES, DrawData, RoundView, told_factors
from tests.benchmarks.roads.training import RoadTrainer
from tests.benchmarks.roads.warmup import round_sampler, train_round, warmed_up

Run = dict[str, Any]


def run_once(
    photos: RoadPhotos, results: Path, *, scenario: str, passes: str, seed: int, strategy: str
) -> bool:
    """Run and record, unless the run is already recorded or the strategy has nothing to tell.

    Args:
        photos: All photos and the work folder.
        results: File that gets a line.
        scenario: A key of ``SCENARIOS``.
        passes: A key of ``REGIMES``.
        seed: Of the split, the head's first weights, the flips and the draws.
        strategy: A key of ``STRATEGIES``.

    Returns:
        Whether it ran.
    """
    key = {
        "scenario": scenario,
        "passes": passes,
        "seed": seed,
        "strategy": strategy,
        "settings": settings_hash(scenario, passes),
    }
    recorded = any(all(run[name] == value for name, value in key.items()) for run in read(results))
    if recorded or (strategy.startswith("told") and SCENARIOS[scenario].condition is None):
        return False
    setup = open_setup(photos, scenario, passes, seed)
    first = setup.regime.rounds if STRATEGIES[strategy].late else 1
    trainer, found = warmed_up(setup, rounds=first - 1)
    started, cpu_started = time.perf_counter(), time.process_time()
    outcome = _train(setup, trainer, found, strategy, first)
    run = {
        **key,
        **outcome,
        "seconds": round(time.perf_counter() - started, 1),
        "cpu_seconds": round(time.process_time() - cpu_started, 1),
    }
    _append(results, run)
    return True


def read(results: Path) -> list[Run]:
    """All recorded runs of the present settings."""
    if not results.exists():
        return []
    runs = [json.loads(line) for line in results.read_text().splitlines() if line]
    return [
        run
        for run in runs
        if run["scenario"] in SCENARIOS
        and run["settings"] == settings_hash(run["scenario"], run["passes"])
    ]


def read_all(files: Sequence[Path]) -> list[Run]:
    """The recorded runs of several files, each of another processor."""
    return [{**run, "processor": number} for number, file in enumerate(files) for run in read(file)]


def _append(results: Path, run: Run) -> None:
    """Add a line in one write, so that lines of several processes do not mix."""
    results.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(results, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, (json.dumps(run) + "\n").encode())
    finally:
        os.close(file)


def _train(setup: Setup, trainer: RoadTrainer, found: Detections, strategy: str, first: int) -> Run:
    """Train a detector on one strategy's draws from the first of its rounds on, then test it."""
    num_train = len(setup.train)
    sampler = round_sampler(setup, rounds=first - 1)
    rule = STRATEGIES[strategy].start(draw_data(setup, sampler))
    val_ap: list[list[float]] = []
    rounds: list[dict[str, float]] = []
    mining_seconds = 0.0
    for number in range(first, setup.regime.rounds + 1):
        if number == first or STRATEGIES[strategy].validates:
            if number > first:
                found = trainer.detect_photos(
                    setup.pixels, torch.from_numpy(setup.split.val), setup.val.sizes
                )
            ap = average_precision_from_matches(match_detections(setup.val, found))
            val_ap.append((100 * ap).round(3).tolist())
            mining_started = time.perf_counter()
            regime = setup.regime
            view = RoundView(regime.progress(number), regime.passes, ap, found)
            sampler.set_weights(rule(view))
            mining_seconds += time.perf_counter() - mining_started
        rows = np.fromiter(sampler, np.int64)
        rounds.append(_shares(setup, rows))
        train_round(setup, trainer, number, rows)
    test_found = trainer.detect_photos(
        setup.pixels, torch.from_numpy(setup.split.test), setup.test.sizes
    )
    attributes = {
        name: values[setup.split.test] for name, values in setup.photos.attributes.items()
    }
    return {
        "class_names": list(setup.train.class_names),
        "test": judge(setup.test, test_found, attributes),
        "val_ap": val_ap,
        "draws": rounds,
        "undrawn_draws": _shares(setup, np.arange(num_train)),
        "mining_seconds": round(mining_seconds, 2),
    }


def draw_data(setup: Setup, sampler: HardMiningSampler) -> DrawData:
    """What a strategy may know of a setup."""
    condition = SCENARIOS[setup.scenario].condition
    told = np.ones(len(setup.train))
    if condition is not None:
        told = told_factors(
            setup.shows(setup.split.train)[condition], setup.shows(setup.split.val)[condition]
        )
    return DrawData(
        ids=setup.train.ids,
        known=setup.train.subset(np.flatnonzero(setup.split.known)),
        val=setup.val,
        index=setup.photos.index,
        encoder=setup.photos.encoder,
        sampler=sampler,
        told=told,
    )


def _shares(setup: Setup, rows: npt.NDArray[np.int64]) -> dict[str, float]:
    """Share of draws that showed each condition and each class, and of distinct photos."""
    shown = setup.shows(setup.split.train)
    shares = {name: float(values[rows].mean()) for name, values in shown.items()}
    classes = (setup.photos.images.subset(setup.split.train).class_counts > 0).toarray()
    for name, values in zip(setup.train.class_names, classes.T, strict=True):
        shares[name] = float(values[rows].mean())
    shares["distinct photos"] = len(np.unique(rows)) / len(setup.train)
    return {name: round(value, 4) for name, value in shares.items()}

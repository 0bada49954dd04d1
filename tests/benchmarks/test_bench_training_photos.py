"""Does mining help on few real photos? A small detector over a frozen ImageNet trunk.

Every photo is tested three times, by detectors that learned from 437 others: no evidence for
large data, but for what mining does where each image is seen often.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from photo_training import FOLDS, SCHEDULE, look_at, race_on_photos

from hardmine.bench.table import Estimate
from hardmine.cli.bench import end_with_parent
from hardmine.encoders.base import DenseFeatures
from hardmine.records import ImageSet

SPLITS = 3 * FOLDS
STRATEGIES = ("uniform", "repeat", "class-aware", "inverse-ap", "hardmine")


@pytest.mark.benchmark
def test_training_on_photos(
    photos: Path, photo_images: ImageSet, photo_features: DenseFeatures, tmp_path: Path
) -> None:
    seen = look_at(photo_images, photo_features.patches, photo_features.whole)
    torch.save(tuple(seen), tmp_path / "seen.pt")
    spawn = get_context("spawn")
    with ProcessPoolExecutor(torch.get_num_threads(), spawn, end_with_parent) as pool:
        races = [
            pool.submit(race_on_photos, split, STRATEGIES, photos, tmp_path / "seen.pt")
            for split in range(SPLITS)
        ]
        runs = {
            (run["strategy"], run["seed"]): run
            for run_scenario in races
            for run in run_scenario.result()
        }
    assert len(runs) == SPLITS * len(STRATEGIES)

    ap = {
        strategy: np.stack([_known(runs[strategy, n]["ap"]) for n in range(SPLITS)])
        for strategy in STRATEGIES
    }
    before = np.stack([_known(runs["uniform", n]["fork_ap"]) for n in range(SPLITS)])
    known = np.isfinite(before)
    order = np.argsort(np.nansum(before, axis=0) / known.sum(axis=0).clip(1), kind="stable")
    third = len(order) // 3
    parts = {"weak third": order[:third], "head third": order[-third:], "all": order}
    print(f"\n{SPLITS} splits, {SCHEDULE.draws} draws in each of {SCHEDULE.epochs} epochs; AP,")
    print("and gains over uniform draws, paired by split (folds share photos)")
    print(f"{'':14}" + "".join(f"{part:>16}" for part in parts))
    for strategy in STRATEGIES:
        cells = []
        for classes in parts.values():
            mine, plain = (
                100 * np.nanmean(ap[a][:, classes], axis=1) for a in (strategy, "uniform")
            )
            same = strategy == "uniform"
            cells.append(str(Estimate.of(mine)) if same else Estimate.of(mine - plain).signed())
        print(f"{strategy:14}" + "".join(f"{cell:>16}" for cell in cells))


def _known(values: list[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])

"""Does mining help on few real photos? A small detector over a frozen ImageNet trunk.

Every photo is tested three times, by detectors that learned from 437 others. This shows what mining
does where each image is drawn often; it is no evidence for large data sets.
"""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from photo_training import FOLDS, SCHEDULE, extract_features, run_on_photos

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
    features = extract_features(photo_images, photo_features.patches, photo_features.whole)
    file = tmp_path / "features.pt"
    torch.save(tuple(features), file)
    spawn = get_context("spawn")
    with ProcessPoolExecutor(torch.get_num_threads(), spawn, end_with_parent) as pool:
        futures = [
            pool.submit(run_on_photos, split, STRATEGIES, photos, file) for split in range(SPLITS)
        ]
        runs = {
            (run["strategy"], run["seed"]): run for future in futures for run in future.result()
        }
    assert len(runs) == SPLITS * len(STRATEGIES)

    ap = {
        strategy: np.stack([_known(runs[strategy, n]["ap"]) for n in range(SPLITS)])
        for strategy in STRATEGIES
    }
    warmup_ap = np.stack([_known(runs["uniform", n]["warmup_ap"]) for n in range(SPLITS)])
    known = np.isfinite(warmup_ap)
    order = np.argsort(np.nansum(warmup_ap, axis=0) / known.sum(axis=0).clip(1), kind="stable")
    third = len(order) // 3
    parts = {"weak third": order[:third], "head third": order[-third:], "all": order}
    print(f"\n{SPLITS} splits, {SCHEDULE.draws} draws in each of {SCHEDULE.epochs} epochs; AP,")
    print("and gains over uniform draws, paired by split (folds share photos)")
    print(f"{'':14}" + "".join(f"{part:>16}" for part in parts))
    for strategy in STRATEGIES:
        cells = []
        for classes in parts.values():
            own, uniform = (
                100 * np.nanmean(ap[name][:, classes], axis=1) for name in (strategy, "uniform")
            )
            if strategy == "uniform":
                cells.append(str(Estimate.of(own)))
            else:
                cells.append(Estimate.of(own - uniform).signed())
        print(f"{strategy:14}" + "".join(f"{cell:>16}" for cell in cells))


def _known(values: list[float | None]) -> npt.NDArray[np.float64]:
    return np.array([np.nan if value is None else value for value in values])

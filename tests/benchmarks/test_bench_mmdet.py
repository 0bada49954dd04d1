"""Time that mining adds to an epoch of MMDetection, in the real Runner.

The config in ``configs/mmdet`` trains the stock RetinaNet-R18 on generated scenes with the hook.
``test_bench_miner.py`` measures a round at COCO's size.
"""

from __future__ import annotations

import importlib.util
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

if importlib.util.find_spec("mmdet") is None:
    pytest.skip("pip install 'hardmine[mmdet]'", allow_module_level=True)

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mmdet_case  # noqa: F401 - replaces operators that mmcv-lite lacks
    from mmdet.utils import register_all_modules
    from mmengine.config import Config
    from mmengine.hooks import Hook
    from mmengine.runner import Runner

    from hardmine_mmdet import HardMiningHook

from hardmine.scenes.write import write_scenes

CONFIG = Path(__file__).parents[2] / "configs" / "mmdet" / "retinanet_r18_scenes.py"
NUM_TRAIN, NUM_VAL, EPOCHS = 240, 60, 2


class Stopwatch:
    """Seconds of each named activity, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def timed(self, name: str) -> Iterator[None]:
        """Time the body of a with statement."""
        start = time.perf_counter()
        yield
        self.seconds.setdefault(name, []).append(time.perf_counter() - start)


class TimedHook(HardMiningHook):  # type: ignore[misc]
    """The hook, with the time of its slow calls measured."""

    def __init__(self, stopwatch: Stopwatch, **options: Any) -> None:
        super().__init__(**options)
        self._stopwatch = stopwatch

    def before_train(self, runner: Any) -> None:
        with self._stopwatch.timed("index"):
            super().before_train(runner)

    def after_val_epoch(self, runner: Any, metrics: Any = None) -> None:
        with self._stopwatch.timed("mining"):
            super().after_val_epoch(runner, metrics)


class EpochMarks(Hook):  # type: ignore[misc]
    """Start times of epochs and validations; a validation includes the hook's time."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.epochs: list[float] = []
        self.validations: list[float] = []

    def before_train_epoch(self, runner: Any) -> None:
        self.epochs.append(time.perf_counter())

    def before_val_epoch(self, runner: Any) -> None:
        self.validations.append(time.perf_counter())

    def after_train(self, runner: Any) -> None:
        self.epochs.append(time.perf_counter())


def settings_for(scenes: Path, work: Path) -> Config:
    settings = Config.fromfile(CONFIG)
    for split in ("train", "val"):
        loader = settings[f"{split}_dataloader"]
        loader.update(num_workers=0, persistent_workers=False)
        loader.dataset.data_root = f"{scenes}/"
    file = f"{scenes}/annotations/val.json"
    settings.val_evaluator.ann_file = settings.test_evaluator.ann_file = file
    # With this threshold an untrained detector gives as many boxes to evaluate as a trained one.
    settings.model.test_cfg.update(score_thr=0.0, max_per_img=100)
    settings.train_cfg.max_epochs = EPOCHS
    settings.work_dir = str(work)
    settings.experiment_name = "bench"
    settings.log_level = "ERROR"
    settings.custom_hooks = []
    return settings


@pytest.mark.benchmark
@pytest.mark.filterwarnings("ignore")
def test_share_of_an_epoch(tmp_path) -> None:
    write_scenes(tmp_path / "scenes", num_images=NUM_TRAIN + NUM_VAL, size=224)
    register_all_modules(init_default_scope=True)
    runner = Runner.from_cfg(settings_for(tmp_path / "scenes", tmp_path / "work"))
    stopwatch, marks = Stopwatch(), EpochMarks()
    runner.register_hook(marks)
    # All classes are weak: the largest number of queries.
    mined = {"need": {"policy": "below:0.99"}}
    runner.register_hook(TimedHook(stopwatch, encoder="tiny", strict=True, miner=mined))
    runner.train()
    print(
        f"\nRetinaNet-R18, {NUM_TRAIN} + {NUM_VAL} scenes of 224 pixels, 36 classes, "
        f"{torch.get_num_threads()} threads"
    )
    [index] = stopwatch.seconds["index"]
    print(f"index, once: {index:.1f} s ({1000 * index / NUM_TRAIN:.0f} ms an image)")
    print("epoch        total   validation    mining   mining's share")
    mining = stopwatch.seconds["mining"]
    assert len(mining) == EPOCHS
    for row, own in enumerate(mining):
        started, ended = marks.epochs[row : row + 2]
        total, validation = ended - started, ended - marks.validations[row] - own
        print(f"{row + 1:5}{total:11.1f} s{validation:11.1f} s{own:8.2f} s{own / total:15.2%}")
        assert own < validation

"""Unusable validations: the log gives the reason, and only ``strict`` ends training."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS, MODELS
from mmdet_case import CLASSES, Recorder, config, make_runner, with_masks
from mmdet_noisy import NoisyDetector
from mmengine.evaluator import BaseMetric
from pixel_images import PixelEncoder

from hardmine.errors import InputError
from hardmine.history import read_rounds
from hardmine_mmdet import HardMiningHook

NOISY = {"type": "NoisyDetector"}
BATCHES = 6  # of four images, in an epoch of 24


@METRICS.register_module(force=True)
class ScriptedMetric(BaseMetric):
    """Reports given values in each validation, as a user's own metric may."""

    default_prefix = "own"
    classwise = True

    def __init__(self, values: list[dict[str, Any]]) -> None:
        super().__init__()
        self._values = list(values)

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[int]) -> dict[str, Any]:
        return self._values.pop(0)


def by_class(values: dict[str, Any], rest: Any = 0.5) -> dict[str, Any]:
    return {f"{name}_precision": values.get(name, rest) for name in CLASSES}


def train(scenes, work, *, strict=False, **more):
    """Train; returns the recorder of the draws and hardmine's lines of the log."""
    settings = config(*scenes, work, custom_hooks=[], log_level="INFO", **({"model": NOISY} | more))
    for loader in (settings.train_dataloader, settings.val_dataloader):
        loader.dataset.pipeline = with_masks(loader.dataset.pipeline)
    recorder = Recorder()
    runner = make_runner(settings, recorder)
    options = {"encoder": PixelEncoder(), "clusters": "none", "strict": strict}
    # As if the epochs were few, and by classes to the end.
    rules = {"max_passes": 100, "look_from": 1.0}
    runner.register_hook(HardMiningHook(miner={"weights": rules}, **options))
    runner.train()
    [log] = work.glob("*/*.log")
    log_lines = [line for line in log.read_text().splitlines() if "hardmine" in line]
    return recorder, log_lines


def reporting(*validations: dict[str, Any]) -> dict[str, Any]:
    evaluator = {"type": "ScriptedMetric", "values": list(validations)}
    return {"val_evaluator": evaluator, "epochs": len(validations)}


USABLE = by_class({"car": 0.1})
UNKNOWN = [
    ({}, "nothing was detected"),
    (by_class({}, rest=math.nan), "all classes have AP NaN or -1"),
    (by_class({}, rest=-1), "all classes have AP NaN or -1"),
]
UNREADABLE = [
    ({"bbox_mAP": 0.3, "bbox_mAP_50": 0.5}, "only averages over classes"),
    (by_class({"car": 25.0}), "must lie in 0 to 1"),
    (by_class({"car": "high"}), "must be a number, got 'high'"),
]


def test_the_weights_stay_as_they_were(scenes, tmp_path) -> None:
    """Before the first round there are no weights to keep; after it there are."""
    unusable = UNKNOWN + UNREADABLE
    count = len(unusable)
    validations = [*(metrics for metrics, _ in unusable), USABLE] * 2
    recorder, log_lines = train(scenes, tmp_path, **reporting(*validations))
    for metrics, reason in unusable:
        # A warning is logged once, an error each time.
        once = (metrics, reason) in UNKNOWN
        assert sum(reason in line for line in log_lines) == (1 if once else 2), reason
    assert len(recorder.batches) == len(validations) * BATCHES
    for epoch in range(count + 1):
        assert set(recorder.counts(epoch * BATCHES, (epoch + 1) * BATCHES).values()) == {1}
    states = [
        torch.load(tmp_path / "hardmine" / "states" / f"iter_{epoch * BATCHES}.pth")
        for epoch in range(1, len(validations) + 1)
    ]
    weights = [state["miner"]["weights"] for state in states]
    assert all(each is None for each in weights[:count])
    assert weights[count].max() > weights[count].min()
    assert all(torch.equal(each, weights[count]) for each in weights[count:-1])
    assert [done.number for done in read_rounds(tmp_path / "hardmine" / "rounds.jsonl")] == [1, 2]
    assert [state["validations"] for state in states] == list(range(1, len(validations) + 1))


@pytest.mark.parametrize(
    ("metrics", "reason"), UNREADABLE, ids=["averages alone", "percent", "text"]
)
def test_strict_ends_training(scenes, tmp_path, metrics, reason) -> None:
    with pytest.raises(InputError, match=reason):
        train(scenes, tmp_path, strict=True, **reporting(metrics))


def test_unknown_ap_is_no_failure(scenes, tmp_path) -> None:
    """A detector may find nothing in its first epochs, even if ``strict``."""
    recorder, _ = train(scenes, tmp_path, strict=True, **reporting({}, by_class({}, rest=math.nan)))
    assert len(recorder.batches) == 2 * BATCHES


def test_a_class_without_ap_is_unknown_and_logged_once(scenes, tmp_path) -> None:
    metrics = by_class({"car": 0.1, "cup": math.nan})
    del metrics["tree_precision"]
    _, log_lines = train(scenes, tmp_path, strict=True, **reporting(metrics, metrics))
    assert sum("'tree' has no score" in line for line in log_lines) == 1
    for done in read_rounds(tmp_path / "hardmine" / "rounds.jsonl"):
        known = dict(zip(done.class_names, zip(done.ap, done.need, strict=True), strict=True))
        assert all(np.isnan(known[name][0]) and known[name][1] == 0 for name in ("tree", "cup"))
        assert known["car"][1] > 0


@MODELS.register_module(force=True)
class BoxlessDetector(NoisyDetector):
    """Predicts instances without boxes, as a model for another task would."""

    def _predict(self, sample: Any) -> Any:
        found = super()._predict(sample)
        del found.bboxes
        return found


@METRICS.register_module(force=True)
class AverageMetric(ScriptedMetric):
    """Reports no AP by class, so that the predictions are evaluated instead."""

    classwise = property()


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_predictions_that_cannot_be_evaluated(scenes, tmp_path, strict) -> None:
    more = {
        **reporting({"mAP": 0.3}, {"mAP": 0.3}),
        "model": {"type": "BoxlessDetector"},
        "val_evaluator.type": "AverageMetric",
    }
    if strict:
        with pytest.raises(InputError, match="predictions cannot be evaluated"):
            train(scenes, tmp_path, strict=True, **more)
        return
    recorder, log_lines = train(scenes, tmp_path, **more)
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert sum("has no attribute 'bboxes'" in line for line in log_lines) == 2


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_a_state_that_cannot_be_written(scenes, tmp_path, strict) -> None:
    blocked = tmp_path / "hardmine" / "states"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    if strict:
        with pytest.raises(FileExistsError):
            train(scenes, tmp_path, strict=True, **reporting(USABLE, USABLE))
        return
    recorder, log_lines = train(scenes, tmp_path, **reporting(USABLE, USABLE))
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) != {1}
    assert sum("could not be saved" in line for line in log_lines) == 2


def test_a_round_that_fails_is_logged(scenes, tmp_path) -> None:
    strangers = {f"strange {name}_precision": 0.1 for name in CLASSES}
    recorder, log_lines = train(scenes, tmp_path, **reporting(strangers, USABLE))
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert sum("round 1 failed" in line and "name none" in line for line in log_lines) == 1
    assert sum("hardmine: round 2: weak car;" in line for line in log_lines) == 1

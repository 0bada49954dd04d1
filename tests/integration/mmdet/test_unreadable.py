"""Validations that say nothing usable: the log says why, and only ``strict`` ends training."""

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
from hardmine.history.rounds import read_rounds
from hardmine_mmdet import HardMiningHook

NOISY = {"type": "NoisyDetector"}
BATCHES = 6  # of four images, in an epoch of 24


@METRICS.register_module(force=True)
class OutspokenMetric(BaseMetric):
    """Says in each validation what it was told to say, as a metric of one's own may."""

    default_prefix = "own"
    classwise = True

    def __init__(self, says: list[dict[str, Any]]) -> None:
        super().__init__()
        self._says = list(says)

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(len(data_samples))

    def compute_metrics(self, results: list[int]) -> dict[str, Any]:
        return self._says.pop(0)


def classes(values: dict[str, Any], rest: Any = 0.5) -> dict[str, Any]:
    return {f"{name}_precision": values.get(name, rest) for name in CLASSES}


def train(scenes, work, *, strict=False, dry_run=False, **more):
    """Train an epoch for each validation; the drawn images and the log come back."""
    settings = config(*scenes, work, custom_hooks=[], log_level="INFO", **({"model": NOISY} | more))
    for loader in (settings.train_dataloader, settings.val_dataloader):
        loader.dataset.pipeline = with_masks(loader.dataset.pipeline)
    recorder = Recorder()
    runner = make_runner(settings, recorder)
    runner.register_hook(
        HardMiningHook(
            encoder=PixelEncoder(), clusters="none", strict=strict, miner={"dry_run": dry_run}
        )
    )
    runner.train()
    [log] = work.glob("*/*.log")
    told = [line for line in log.read_text().splitlines() if "hardmine" in line]
    return recorder, told


def says(*validations: dict[str, Any]) -> dict[str, Any]:
    evaluator = {"type": "OutspokenMetric", "says": list(validations)}
    return {"val_evaluator": evaluator, "epochs": len(validations)}


USABLE = classes({"car": 0.1})
NOTHING_KNOWN = [
    ({}, "validation detected nothing"),
    (classes({}, rest=math.nan), "validation gave no class a value"),
    (classes({}, rest=-1), "validation gave no class a value"),
]
UNREADABLE = [
    ({"bbox_mAP": 0.3, "bbox_mAP_50": 0.5}, "only averages over classes"),
    (classes({"car": 25.0}), "must lie in 0 to 1"),
    (classes({"car": "high"}), "must be a number, got 'high'"),
]


@pytest.mark.parametrize(
    ("said", "reason"),
    NOTHING_KNOWN + UNREADABLE,
    ids=["empty", "nan", "minus one", "averages alone", "percent", "text"],
)
def test_the_draws_stay_as_they_were(scenes, tmp_path, said, reason) -> None:
    """In the first round there are no weights to keep; in the third there are."""
    recorder, told = train(scenes, tmp_path, **says(said, USABLE, said, USABLE))
    # mmengine tells a warning once, an error each time.
    assert sum(reason in line for line in told) == (1 if "validation" in reason else 2)
    assert len(recorder.batches) == 4 * BATCHES
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    states = [
        torch.load(tmp_path / "hardmine" / "states" / f"iter_{epoch * BATCHES}.pth")
        for epoch in (1, 2, 3, 4)
    ]
    weights = [state["miner"]["weights"] for state in states]
    assert weights[0] is None
    assert weights[1].max() > weights[1].min()
    assert torch.equal(weights[1], weights[2])
    assert [done.number for done in read_rounds(tmp_path / "hardmine" / "rounds.jsonl")] == [1, 2]
    assert [state["validations"] for state in states] == [1, 2, 3, 4]


@pytest.mark.parametrize(("said", "reason"), UNREADABLE, ids=["averages alone", "percent", "text"])
def test_strict_ends_training(scenes, tmp_path, said, reason) -> None:
    with pytest.raises(InputError, match=reason):
        train(scenes, tmp_path, strict=True, **says(said))


def test_nothing_known_is_no_failure(scenes, tmp_path) -> None:
    """A detector finds nothing in its first epochs; strict or not."""
    recorder, _ = train(scenes, tmp_path, strict=True, **says({}, classes({}, rest=math.nan)))
    assert len(recorder.batches) == 2 * BATCHES


def test_a_class_without_a_value_is_unknown_and_told_once(scenes, tmp_path) -> None:
    said = classes({"car": 0.1, "cup": math.nan})
    del said["tree_precision"]
    _, told = train(scenes, tmp_path, strict=True, **says(said, said))
    assert sum("'tree' has no score" in line for line in told) == 1
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
class AverageMetric(OutspokenMetric):
    """Knows no classes, so that the predictions are judged instead."""

    classwise = property()


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_predictions_that_cannot_be_judged(scenes, tmp_path, strict) -> None:
    more = {
        **says({"mAP": 0.3}, {"mAP": 0.3}),
        "model": {"type": "BoxlessDetector"},
        "val_evaluator.type": "AverageMetric",
    }
    if strict:
        with pytest.raises(InputError, match="predictions cannot be judged"):
            train(scenes, tmp_path, strict=True, **more)
        return
    recorder, told = train(scenes, tmp_path, **more)
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert sum("has no attribute 'bboxes'" in line for line in told) == 2


@pytest.mark.parametrize("strict", [False, True], ids=["lenient", "strict"])
def test_a_state_that_cannot_be_written(scenes, tmp_path, strict) -> None:
    blocked = tmp_path / "hardmine" / "states"
    blocked.parent.mkdir(parents=True)
    blocked.write_text("a file where a folder should be")
    if strict:
        with pytest.raises(FileExistsError):
            train(scenes, tmp_path, strict=True, **says(USABLE, USABLE))
        return
    recorder, told = train(scenes, tmp_path, **says(USABLE, USABLE))
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) != {1}
    assert sum("is not saved" in line for line in told) == 2


def test_a_round_that_fails_is_told_in_the_log_of_the_run(scenes, tmp_path) -> None:
    strangers = {f"strange {name}_precision": 0.1 for name in CLASSES}
    recorder, told = train(scenes, tmp_path, **says(strangers, USABLE))
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert sum("round 1 failed" in line and "name none" in line for line in told) == 1
    assert sum("hardmine round 2: weak car;" in line for line in told) == 1


def test_a_dry_run_is_told_and_draws_as_ever(scenes, tmp_path) -> None:
    recorder, told = train(scenes, tmp_path, dry_run=True, **says(USABLE, USABLE))
    assert set(recorder.counts(BATCHES, 2 * BATCHES).values()) == {1}
    assert sum("weak car;" in line and "(dry run" in line for line in told) == 2

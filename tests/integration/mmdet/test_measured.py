"""What is measured on the predicted boxes: confused classes, and conditions that are weak."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet_case import CLASSES, config, make_runner, write_scenes
from mmengine.model import BaseModel
from mmengine.structures import InstanceData
from pixel_images import PixelEncoder

from hardmine.history.rounds import read_rounds
from hardmine_mmdet import HardMiningHook


@MODELS.register_module(force=True)
class FaultyDetector(BaseModel):  # type: ignore[misc]
    """Finds every labelled box, but for two faults.

    Args:
        blind: Ids of images in which it finds nothing.
        taken_for: For some classes, by row, the class that it takes them for.
    """

    def __init__(self, blind: tuple[int, ...] = (), taken_for: dict[int, int] | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._blind = set(blind)
        self._taken_for = taken_for or {}

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        if mode == "loss":
            return {"loss": (self.weight - 1) ** 2}
        for sample in data_samples:
            seen = slice(0 if sample.img_id in self._blind else None)
            boxes = sample.gt_instances.bboxes.tensor[seen]
            labels = sample.gt_instances.labels.tolist()[seen]
            sample.pred_instances = InstanceData(
                bboxes=boxes,
                labels=torch.tensor([self._taken_for.get(label, label) for label in labels]).long(),
                scores=torch.full((len(boxes),), 0.9),
            )
        return data_samples


def mine(scenes, work, model: dict[str, Any], **hook: Any):
    """The first round of training with a faulty detector."""
    runner = make_runner(
        config(*scenes, work, model={"type": "FaultyDetector", **model}, custom_hooks=[], epochs=1)
    )
    runner.register_hook(HardMiningHook(clusters="kmeans:4+whole", **hook))
    runner.train()
    [done] = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert not done.error
    return done


def test_confused_classes_are_found_in_the_predicted_boxes(scenes, tmp_path) -> None:
    """Trees taken for cars: what detects a car wrongly stands on a tree."""
    tree, car = CLASSES.index("tree"), CLASSES.index("car")
    done = mine(scenes, tmp_path, {"taken_for": {tree: car}}, encoder=PixelEncoder())
    assert done.settings["confusion"] == [[car, tree, 1.0]]
    ((row, other, _),) = done.settings["taken_for"]
    assert (row, other) == (tree, car)


def test_nothing_is_measured_where_that_is_turned_off(scenes, tmp_path) -> None:
    tree, car = CLASSES.index("tree"), CLASSES.index("car")
    done = mine(scenes, tmp_path, {"taken_for": {tree: car}}, encoder=PixelEncoder(), measure=False)
    assert done.settings["confusion"] == done.settings["taken_for"] == []


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> tuple[Any, list[str]]:
    """Scenes by day and by night; night is rare in training."""
    root = tmp_path_factory.mktemp("nights")
    write_scenes(root / "train", num_images=40, seed=1, contexts={"day": 0.8, "night": 0.2})
    light = write_scenes(root / "val", num_images=60, seed=2, contexts={"day": 0.5, "night": 0.5})
    return (root / "train", root / "val"), light


def test_a_condition_is_asked_for_where_the_detector_fails_in_it(nights, tmp_path) -> None:
    scenes, light = nights
    dark = tuple(1000 + 3 * row for row, told in enumerate(light) if told == "night")
    done = mine(
        scenes, tmp_path, {"blind": dark}, encoder="tiny", miner={"contexts": ("at night",)}
    )
    assert "at night" in {one.condition for one in done.asked}
    assert done.settings["answers"]["at night"][1] == pytest.approx(len(dark) / len(light), abs=0.1)
    assert (tmp_path / "hardmine" / "val-index.hmx").is_dir()


def test_a_condition_without_fault_is_not_asked_for(nights, tmp_path) -> None:
    scenes, _ = nights
    done = mine(scenes, tmp_path, {}, encoder="tiny", miner={"contexts": ("at night",)})
    assert "at night" not in {one.condition for one in done.asked}
    assert np.nanmin(done.ap) > 0.9

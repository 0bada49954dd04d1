"""What the predicted boxes show: confused classes, and contexts in which a class is weak."""

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

from hardmine.history import read_rounds
from hardmine.index import open_index
from hardmine_mmdet import HardMiningHook


@MODELS.register_module(force=True)
class FaultyDetector(BaseModel):  # type: ignore[misc]
    """Finds every labelled box, except for two faults.

    Args:
        blind: Ids of images in which it finds nothing.
        mistaken_for: For some classes, by row, the class that it predicts instead.
    """

    def __init__(self, blind: tuple[int, ...] = (), mistaken_for: dict[int, int] | None = None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._blind = set(blind)
        self._mistaken_for = mistaken_for or {}

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        if mode == "loss":
            return {"loss": (self.weight - 1) ** 2}
        for sample in data_samples:
            seen = slice(0 if sample.img_id in self._blind else None)
            boxes = sample.gt_instances.bboxes.tensor[seen]
            labels = sample.gt_instances.labels.tolist()[seen]
            sample.pred_instances = InstanceData(
                bboxes=boxes,
                labels=torch.tensor(
                    [self._mistaken_for.get(label, label) for label in labels]
                ).long(),
                scores=torch.full((len(boxes),), 0.9),
            )
        return data_samples


def mine(scenes, work, model: dict[str, Any], **hook: Any):
    """Train with a faulty detector; returns the first round."""
    runner = make_runner(
        config(*scenes, work, model={"type": "FaultyDetector", **model}, custom_hooks=[], epochs=1)
    )
    runner.register_hook(HardMiningHook(clusters="kmeans:4+whole", **hook))
    runner.train()
    [done] = read_rounds(work / "hardmine" / "rounds.jsonl")
    assert not done.error
    return done


def test_confused_classes_are_found_in_the_predicted_boxes(scenes, tmp_path) -> None:
    """Trees are mistaken for cars: a wrong detection of a car lies on a tree."""
    tree, car = CLASSES.index("tree"), CLASSES.index("car")
    done = mine(scenes, tmp_path, {"mistaken_for": {tree: car}}, encoder=PixelEncoder())
    ((row, other, _),) = done.inputs.mistaken_for
    assert (row, other) == (tree, car)


def test_measuring_can_be_turned_off(scenes, tmp_path) -> None:
    tree, car = CLASSES.index("tree"), CLASSES.index("car")
    done = mine(
        scenes, tmp_path, {"mistaken_for": {tree: car}}, encoder=PixelEncoder(), measure=False
    )
    assert done.inputs.mistaken_for == ()


@pytest.fixture(scope="module")
def nights(tmp_path_factory) -> tuple[Any, list[str], dict[str, str]]:
    """Scenes by day and by night, rare in training; contexts in validation; where indexes go."""
    root = tmp_path_factory.mktemp("nights")
    write_scenes(root / "train", num_images=40, seed=1, contexts={"day": 0.8, "night": 0.2})
    contexts = write_scenes(
        root / "val", num_images=60, seed=2, contexts={"day": 0.5, "night": 0.5}
    )
    indexes = {"index": str(root / "train.hmx"), "val_index": str(root / "val.hmx")}
    return (root / "train", root / "val"), contexts, indexes


def test_a_context_is_searched_where_the_detector_fails_in_it(nights, tmp_path) -> None:
    scenes, contexts, indexes = nights
    dark = tuple(1000 + 3 * row for row, context in enumerate(contexts) if context == "night")
    done = mine(
        scenes,
        tmp_path,
        {"blind": dark},
        encoder="tiny",
        miner={"contexts": ("at night",)},
        **indexes,
    )
    assert "at night" in {query.context for query in done.queries}
    assert set(done.inputs.context_thresholds) == {"at night"}
    assert len(open_index(indexes["val_index"]).ids) == len(contexts)


def test_a_context_without_faults_is_not_searched(nights, tmp_path) -> None:
    scenes, _, indexes = nights
    miner = {"contexts": ("at night",)}
    done = mine(scenes, tmp_path, {}, encoder="tiny", miner=miner, **indexes)
    assert "at night" not in {query.context for query in done.queries}
    assert np.nanmin(done.ap) > 0.9

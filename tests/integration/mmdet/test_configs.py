"""Every config in configs/mmdet can be built, and the one for scenes trains."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import HOOKS
from mmengine.runner import Runner

from hardmine import WeightRules
from hardmine.history import read_rounds
from hardmine.scenes import NAMES
from hardmine.scenes.write import write_scenes
from hardmine_mmdet import HardMiningHook

CONFIGS = Path(__file__).parents[3] / "configs" / "mmdet"


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.py")), ids=lambda file: file.stem)
def test_a_config_can_be_built(file) -> None:
    settings = Config.fromfile(file)
    assert settings.train_dataloader.sampler.type == "HardMiningSampler"
    hooks = [HOOKS.build(hook) for hook in settings.custom_hooks if "HardMining" in hook["type"]]
    assert [type(hook) for hook in hooks] == [HardMiningHook]
    settings.model.pop("init_cfg", None)
    assert MODELS.build(settings.model) is not None


def test_a_base_keeps_its_own_hooks() -> None:
    settings = Config.fromfile(CONFIGS / "rtmdet_s_coco.py")
    kinds = [hook["type"] for hook in settings.custom_hooks]
    assert kinds == ["EMAHook", "PipelineSwitchHook", "HardMiningHook"]


def test_lvis_beside_and_instead_of_class_balancing() -> None:
    beside = Config.fromfile(CONFIGS / "mask_rcnn_r50_lvis.py")
    instead = Config.fromfile(CONFIGS / "mask_rcnn_r50_lvis_instead.py")
    assert beside.train_dataloader.dataset.type == "ClassBalancedDataset"
    assert instead.train_dataloader.dataset == beside.train_dataloader.dataset.dataset
    # Either the wrapper balances class frequency or mining does.
    balances = [
        WeightRules(**config.custom_hooks[0]["miner"].get("weights", {})).balance
        for config in (beside, instead)
    ]
    assert balances == [0.0, WeightRules().balance]


def test_scenes_train_offline_from_the_config_alone(tmp_path) -> None:
    write_scenes(tmp_path / "scenes", num_images=10, size=64)
    settings = Config.fromfile(CONFIGS / "retinanet_r18_scenes.py")
    assert tuple(settings.classes) == NAMES
    root = f"{tmp_path}/scenes/"
    for split in ("train", "val"):
        settings[f"{split}_dataloader"].update(num_workers=0, persistent_workers=False)
        settings[f"{split}_dataloader"].dataset.data_root = root
        for step in settings[f"{split}_dataloader"].dataset.pipeline:
            if step["type"] == "Resize":
                step["scale"] = (64, 64)
    settings.val_evaluator.ann_file = settings.test_evaluator.ann_file = (
        f"{root}annotations/val.json"
    )
    settings.model.test_cfg.score_thr = 0.0
    settings.train_cfg.max_epochs = 1
    settings.work_dir = str(tmp_path / "work")
    Runner.from_cfg(settings).train()
    rounds = read_rounds(tmp_path / "work" / "hardmine" / "rounds.jsonl")
    assert len(rounds) == 1
    assert not any(done.error for done in rounds)

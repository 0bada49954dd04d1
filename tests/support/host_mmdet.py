"""A training in MMDetection with hardmine: by epochs, or by iterations if saved within one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mmdet_noisy  # noqa: F401 - registers NoisyDetector
import torch
from host_scenes import BATCHES, Trained, load_scenes, miner_options
from mmdet_case import SIDE, Recorder, config, make_runner
from mmengine.logging import MessageHub
from mmengine.registry import TRANSFORMS
from pixel_images import PixelEncoder

from hardmine.records import ImageSet
from hardmine_mmdet import HardMiningHook
from hardmine_mmdet.safe_checkpoints import SAFE_GLOBALS


@TRANSFORMS.register_module(force=True)
class NotePartner:
    """Draws a partner as Mosaic and MixUp do, and notes its id."""

    def get_indexes(self, dataset: Any) -> int:
        """The row of a partner."""
        return int(torch.randint(len(dataset), ()))

    def __call__(self, results: dict[str, Any]) -> dict[str, Any]:
        [partner] = results.pop("mix_results")
        return results | {"partner": partner["img_id"]}


class Recorded(Recorder):
    """Records the partner of each image too."""

    def __init__(self) -> None:
        super().__init__()
        self.partners: list[list[int]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        """Note a batch."""
        super().before_train_iter(runner, batch_idx, data_batch)
        samples = data_batch["data_samples"]
        self.partners.append([sample.get("partner", -1) for sample in samples])


class AveragesAlone(HardMiningHook):
    """Gets metrics without AP by class."""

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        """Mine by an average."""
        super().after_val_epoch(runner, {"coco/bbox_mAP": 0.1})


def train(
    scenes: Path,
    work: Path,
    *,
    epochs: int = 2,
    workers: int = 0,
    resume: Path | None = None,
    partners: bool = False,
    fail: bool = False,
    save_every: int | None = None,
    weights: Any = None,
    **more: Any,
) -> Trained:
    """Train; ``fail`` hides AP by class from the hook."""
    from mmdet.utils import register_all_modules  # needs what mmdet_case installs

    MessageHub._instance_dict.clear()
    register_all_modules(init_default_scope=True)
    torch.serialization.add_safe_globals(SAFE_GLOBALS)  # another trainer may have taken them out
    train_images, val_images = load_scenes(scenes)
    by_iterations = save_every is not None or (resume is not None and "iter" in resume.name)
    if by_iterations:
        more |= {
            "train_cfg": {
                "type": "IterBasedTrainLoop",
                "max_iters": epochs * BATCHES,
                "val_interval": BATCHES,
            },
            "train_dataloader.sampler": {"type": "HardMiningSampler", "infinite": True},
            "default_hooks.checkpoint": {
                "type": "CheckpointHook",
                "by_epoch": False,
                "interval": save_every or BATCHES,
            },
        }
    elif resume is not None:
        # The checkpoint of an epoch lacks the round that follows it, which is kept beside it.
        shutil.copytree(resume.parent / "hardmine", work / "hardmine")
    if resume is not None:
        more |= {"resume": True, "load_from": str(resume)}
    settings = config(
        scenes,
        scenes,
        work,
        model={"type": "NoisyDetector"},  # draws are asked about; test_runs trains RetinaNet
        epochs=epochs,
        custom_hooks=[],
        **{
            "train_dataloader.dataset": _dataset(scenes, train_images, "train", partners=partners),
            "train_dataloader.num_workers": workers,
            "val_dataloader.dataset": _dataset(scenes, val_images, "val"),
            "val_evaluator.ann_file": str(scenes / "annotations" / "val.json"),
            "randomness": {"seed": 3},
            **more,
        },
    )
    recorder = Recorded()
    runner = make_runner(settings, recorder)
    hook = (AveragesAlone if fail else HardMiningHook)(
        index=str(scenes / "mmdet.hmx"),
        val_index=str(scenes / "mmdet-val.hmx"),
        encoder=PixelEncoder(),
        clusters="none",
        miner=miner_options(weights),
    )
    runner.register_hook(hook)
    runner.train()
    runner.val()  # not mined: training is over
    trained = Trained()
    for batch, drawn in zip(recorder.batches, recorder.partners, strict=True):
        trained.batches.append(train_images.rows_of(batch).tolist())
        trained.partners.append(train_images.rows_of(drawn).tolist())
    for file in work.glob("*/vis_data/scalars.json"):
        for line in file.read_text().splitlines():
            for name, value in json.loads(line).items():
                trained.scalars.setdefault(name, []).append(value)
    return trained


def _dataset(
    scenes: Path, images: ImageSet, split: str, *, partners: bool = False
) -> dict[str, Any]:
    """A CocoDataset of a split; with partners, a MultiImageMixDataset around it."""
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    load = [{"type": "LoadImageFromFile"}, {"type": "LoadAnnotations", "with_bbox": True}]
    resize = {"type": "Resize", "scale": (SIDE, SIDE), "keep_ratio": True}
    dataset = {
        "type": "CocoDataset",
        "data_root": str(scenes),
        "ann_file": f"annotations/{split}.json",
        "data_prefix": {"img": ""},
        "metainfo": {"classes": images.class_names},
        "test_mode": split == "val",
        "serialize_data": False,
    }
    if not partners:
        return dataset | {"pipeline": [*load, resize, {"type": "PackDetInputs", "meta_keys": keys}]}
    pack = {"type": "PackDetInputs", "meta_keys": (*keys, "partner")}
    pipeline = [{"type": "NotePartner"}, resize, pack]
    return {
        "type": "MultiImageMixDataset",
        "dataset": dataset | {"pipeline": load},
        "pipeline": pipeline,
    }

"""A small MMDetection training that runs in seconds: scenes, configs, a runner."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import mmcv_ext_from_torchvision
import mmengine
from PIL import Image

mmcv_ext_from_torchvision.install()

from mmengine.config import Config, ConfigDict  # noqa: E402
from mmengine.hooks import Hook  # noqa: E402
from mmengine.runner import Runner  # noqa: E402

from hardmine.scenes import NAMES, generate_scene  # noqa: E402

# mmengine has yapf format the whole config for each checkpoint, most of a short training's time.
mmengine.config.config.FormatCode = lambda text, **options: (text, False)

SIDE = 64
CLASSES = NAMES[:8]
STOCK = Path(mmengine.__file__).parents[1] / "mmdet" / ".mim" / "configs"


def write_scenes(folder: Path, *, num_images: int, seed: int, **options: Any) -> list[str]:
    """Write scenes in COCO format; every fifth is tall, every seventh has no labels.

    Args:
        folder: Gets ``images`` and ``labels.json``.
        num_images: Number of scenes.
        seed: Of the scenes.
        **options: More arguments of ``generate_scene``.

    Returns:
        The context of each scene: its light or weather.
    """
    contexts = []
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for number in range(num_images):
        scene = generate_scene(seed, number, size=SIDE, **options)
        contexts.append(scene.context)
        width = SIDE * 3 // 4 if number % 5 == 0 else SIDE
        Image.fromarray(scene.image[:, :width]).save(folder / "images" / f"{number:04}.jpg")
        # Ids that cannot be mistaken for positions: they start high and have gaps.
        image_id = 1000 + 3 * number
        images.append(
            {"id": image_id, "file_name": f"{number:04}.jpg", "width": width, "height": SIDE}
        )
        for thing in scene.objects if number % 7 else ():
            x1, y1, x2, y2 = (min(value, width) for value in thing.box)
            if thing.kind not in CLASSES or min(x2 - x1, y2 - y1) < 2:
                continue
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image_id,
                    "category_id": 10 + CLASSES.index(thing.kind),
                    "bbox": [x1, y1, x2 - x1, y2 - y1],
                    "area": (x2 - x1) * (y2 - y1),
                    "segmentation": [[x1, y1, x2, y1, x2, y2, x1, y2]],
                    "iscrowd": 0,
                }
            )
    categories = [{"id": 10 + row, "name": name} for row, name in enumerate(CLASSES)]
    content = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "labels.json").write_text(json.dumps(content))
    return contexts


def pipeline(*, train: bool) -> list[dict[str, Any]]:
    """Load, resize, pack."""
    steps: list[dict[str, Any]] = [
        {"type": "LoadImageFromFile"},
        {"type": "LoadAnnotations", "with_bbox": True},
        {"type": "Resize", "scale": (SIDE, SIDE), "keep_ratio": True},
    ]
    if train:
        steps.append({"type": "RandomFlip", "prob": 0.5})
        return [*steps, {"type": "PackDetInputs"}]
    keys = ("img_id", "img_path", "ori_shape", "img_shape", "scale_factor")
    return [*steps, {"type": "PackDetInputs", "meta_keys": keys}]


def coco(folder: Path, *, train: bool, **more: Any) -> dict[str, Any]:
    """A CocoDataset over a folder of ``write_scenes``."""
    return {
        "type": "CocoDataset",
        "data_root": str(folder),
        "ann_file": "labels.json",
        "data_prefix": {"img": "images/"},
        "metainfo": {"classes": CLASSES},
        "pipeline": pipeline(train=train),
        "test_mode": not train,
        # Serializing collects garbage, which takes a second where much is imported.
        "serialize_data": False,
        **more,
    }


def retinanet() -> dict[str, Any]:
    """The stock RetinaNet on a ResNet-18, made narrow, without a download."""
    model = Config.fromfile(STOCK / "retinanet" / "retinanet_r18_fpn_1x_coco.py").model
    model.backbone.init_cfg = None
    model.backbone.base_channels = 16
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    model.bbox_head.update(
        num_classes=len(CLASSES), in_channels=32, feat_channels=32, stacked_convs=1
    )
    return _detecting(model)


def rtmdet_tiny() -> dict[str, Any]:
    """The stock RTMDet-tiny, made narrow, without a download."""
    model = Config.fromfile(STOCK / "rtmdet" / "rtmdet_tiny_8xb32-300e_coco.py").model
    model.backbone.update(init_cfg=None, widen_factor=0.125)
    model.neck.update(in_channels=[32, 64, 128], out_channels=32)
    model.bbox_head.update(num_classes=len(CLASSES), in_channels=32, feat_channels=32)
    for part in (model.backbone, model.neck, model.bbox_head):
        part.norm_cfg = {"type": "BN"}
    return _detecting(model)


def mask_rcnn() -> dict[str, Any]:
    """The stock Mask R-CNN on a ResNet-18, made narrow, without a download."""
    model = Config.fromfile(STOCK / "mask_rcnn" / "mask-rcnn_r50_fpn_1x_coco.py").model
    model.backbone.update(depth=18, init_cfg=None, base_channels=16, frozen_stages=-1)
    model.neck.update(in_channels=[16, 32, 64, 128], out_channels=32)
    model.rpn_head.update(in_channels=32, feat_channels=32)
    for part in (model.roi_head.bbox_roi_extractor, model.roi_head.mask_roi_extractor):
        part.out_channels = 32
    model.roi_head.bbox_head.update(in_channels=32, fc_out_channels=64, num_classes=len(CLASSES))
    model.roi_head.mask_head.update(
        in_channels=32, conv_out_channels=32, num_convs=1, num_classes=len(CLASSES)
    )
    model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    return dict(model)


def with_masks(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A pipeline that loads masks as well."""
    return [
        {**step, "with_mask": True} if step["type"] == "LoadAnnotations" else step for step in steps
    ]


def _detecting(model: ConfigDict) -> dict[str, Any]:
    """Lower the score threshold, so that a hardly trained model detects something."""
    model.test_cfg.update(score_thr=0.0, max_per_img=50, nms_pre=100)
    return dict(model)


class Recorder(Hook):
    """Records the image ids of each training iteration."""

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def before_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None) -> None:
        samples = data_batch["data_samples"]
        self.batches.append(tuple(sample.img_id for sample in samples))

    def counts(self, first: int, last: int) -> Counter[int]:
        """How often each image was drawn in a range of batches."""
        return Counter(image for batch in self.batches[first:last] for image in batch)


def config(
    train: Path,
    val: Path,
    work: Path,
    *,
    hook: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
    epochs: int = 2,
    **more: Any,
) -> ConfigDict:
    """A complete training config; ``more`` replaces entries of it by dotted names."""
    settings = {
        "model": model or retinanet(),
        "default_scope": "mmdet",
        "custom_imports": {"imports": ["hardmine_mmdet"], "allow_failed_imports": False},
        "work_dir": str(work),
        "train_dataloader": {
            "batch_size": 4,
            "num_workers": 0,
            "sampler": {"type": "HardMiningSampler"},
            "dataset": coco(train, train=True),
        },
        "val_dataloader": {
            "batch_size": 4,
            "num_workers": 0,
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "dataset": coco(val, train=False),
        },
        "val_evaluator": {"type": "CocoMetric", "ann_file": str(val / "labels.json")},
        "train_cfg": {"type": "EpochBasedTrainLoop", "max_epochs": epochs, "val_interval": 1},
        "val_cfg": {"type": "ValLoop"},
        "optim_wrapper": {
            "type": "OptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.002, "momentum": 0.9},
        },
        "default_hooks": {
            "checkpoint": {"type": "CheckpointHook", "interval": 1},
            "logger": {"type": "LoggerHook", "interval": 1000},
        },
        "custom_hooks": [{"type": "HardMiningHook", **(hook or {})}],
        "log_level": "WARNING",
        "randomness": {"seed": 7},
    }
    for name, value in more.items():
        *outer, last = name.split(".")
        part: dict[str, Any] = settings
        for key in outer:
            part = part[key]
        part[last] = value
    return Config(settings)


def make_runner(settings: ConfigDict, recorder: Recorder | None = None) -> Runner:
    """Build the runner of a config, with a recorder of its draws."""
    settings.experiment_name = f"case_{id(settings)}_{Path(settings.work_dir).name}"
    runner = Runner.from_cfg(settings)
    if recorder is not None:
        runner.register_hook(recorder)
    return runner

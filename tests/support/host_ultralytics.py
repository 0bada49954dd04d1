"""Trainings in Ultralytics with hardmine, in a process of their own.

Ultralytics replaces ``torch.save`` and print options when it is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}

import numpy as np
import ultralytics
import yaml
from host_scenes import BATCH_SIZE, MINER, NUM_IMAGES
from pixel_images import PixelEncoder
from ultralytics import YOLO
from ultralytics.data.augment import Compose, MixUp, Mosaic

from hardmine.errors import InputError
from hardmine.hosts import PartnerTable
from hardmine_ultralytics import HardMining
from hardmine_ultralytics.partners import install_partners


def small_config(name: str, folder: Path) -> Path:
    """The config of a model with a sixteenth of its channels."""
    folder.mkdir(parents=True, exist_ok=True)
    [file] = Path(ultralytics.__file__).parent.glob(f"cfg/models/*/{name}.yaml")
    config = yaml.safe_load(file.read_text())
    config["scales"] = {"n": [0.33, 0.0625, 1024]}
    small = folder / f"{name[:6]}n{name[6:]}.yaml"
    small.write_text(yaml.safe_dump(config))
    return small


def train(
    data: Path,
    work: Path,
    *,
    config: str = "yolo11",
    resume: Path | None = None,
    copy_after: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train; returns the files of each batch, what was logged, and the boxes of the validations.

    ``copy_after`` copies the checkpoint of an epoch, as it lies there after a crash.
    """
    model = YOLO(str(resume or small_config(config, work)))
    mining = HardMining(data / "index.hmx", encoder=PixelEncoder(), clusters="none", miner=MINER)
    mining.attach(model)
    batches: list[list[str]] = []
    logged: list[dict[str, float]] = []
    boxes: list[dict[str, Any]] = []

    def record(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def recorded(batch: Any) -> Any:
            batches.append([Path(file).name for file in batch["im_file"]])
            return preprocess(batch)

        trainer.preprocess_batch = recorded
        # Ultralytics' own conversion to pixels of the image files; a new model is sure of nothing.
        trainer.validator.args.save_json = True
        trainer.validator.args.conf, trainer.validator.args.max_det = 1e-7, 20
        step = mining._mining.miner.step

        def stepped(metrics: Any, *, val_detections: Any) -> Any:
            boxes.append({"ours": plain_boxes(val_detections), "json": trainer.validator.jdict})
            return step(metrics, val_detections=val_detections)

        mining._mining.miner.step = stepped

    def note(trainer: Any) -> None:
        logged.append({name: float(value) for name, value in trainer.metrics.items()})
        trainer.validator.args.save_json = trainer.epoch < trainer.epochs - 1
        if trainer.epoch == copy_after:
            shutil.copy(trainer.last, work / "copy.pt")

    model.add_callback("on_train_start", record)
    model.add_callback("on_fit_epoch_end", note)
    options = {
        "data": str(data / "data.yaml"),
        "epochs": 3,
        "imgsz": 64,
        "batch": BATCH_SIZE,
        "workers": 1,
        "device": "cpu",
        "project": str(work),
        "name": "run",
        "exist_ok": True,
        "plots": False,
        "close_mosaic": 0,
        "amp": False,
        "seed": 3,
        "optimizer": "SGD",
        **more,
    }
    model.train(**({"resume": True} if resume else options))
    return {"batches": batches, "logged": logged, "boxes": boxes}


def plain_boxes(detections: Any) -> list[Any]:
    """Row of the image, class, score and corners of each box."""
    columns = (detections.image_rows, detections.class_rows, detections.scores, detections.boxes)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def refusal(data: Path, work: Path, **more: Any) -> str:
    """The error of a training that is refused."""
    try:
        train(data, work, **more)
    except InputError as error:
        return str(error)
    return ""


def draw_partners() -> dict[str, Any]:
    """The partners drawn where one image has all the weight; Mosaic stands in two places."""

    class Images:
        cache = "disk"
        transforms: Any = None

        def __len__(self) -> int:
            return NUM_IMAGES

    images = Images()
    mosaic = Mosaic(images, imgsz=64, p=1.0, n=4)
    mixup = MixUp(images, pre_transform=Compose([mosaic]), p=1.0)
    images.transforms = Compose([Compose([mosaic]), mixup])
    table = PartnerTable(NUM_IMAGES)
    install_partners(images, table)
    only = np.full(NUM_IMAGES, 1e-9)
    only[5] = 1.0
    table.set_weights(only)
    return {"mosaic": mosaic.get_indexes(), "mixup": mixup.get_indexes()}


def main(data: Path, work: Path) -> None:
    """Run every training and write what happened to a file."""
    results: dict[str, Any] = {
        "yolo11": train(data, work / "yolo11", copy_after=1),
        "yolo26": train(data, work / "yolo26", config="yolo26", epochs=2),
        "yolo11-seg": train(data, work / "yolo11-seg", config="yolo11-seg", epochs=1),
        # Turned boxes are compared with each other, and a new model is sure of none: a small image
        # has a quarter of them.
        "yolo11-obb": train(data, work / "yolo11-obb", config="yolo11-obb", epochs=1, imgsz=32),
    }
    results["rest"] = train(data, work / "rest", resume=work / "yolo11" / "copy.pt")
    results["rect"] = refusal(data, work / "rect", rect=True)
    results["val"] = refusal(data, work / "val", val=False)
    try:
        HardMining("unused.hmx").on_pretrain_routine_end(SimpleNamespace(world_size=2))
    except InputError as error:
        results["ranks"] = str(error)
    results["partners"] = draw_partners()
    (work / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

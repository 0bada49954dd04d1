"""Trainings in Ultralytics with hardmine, in a process of their own.

Ultralytics replaces ``torch.save`` and print options when it is imported.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}

import numpy as np
from host_scenes import BATCH_SIZE, MINER, NUM_IMAGES
from pixel_images import PixelEncoder
from ultralytics import YOLO
from ultralytics.data.augment import Compose, MixUp, Mosaic

from hardmine.errors import InputError
from hardmine.hosts import PartnerTable
from hardmine_ultralytics import HardMining
from hardmine_ultralytics.partners import install_partners


class Stop(Exception):
    """Ends a training as a crash would."""


def train(
    data: Path,
    work: Path,
    *,
    config: str = "yolo11n.yaml",
    resume: Path | None = None,
    stop: int | None = None,
    **more: Any,
) -> dict[str, Any]:
    """Train; returns the files of each batch and the values logged after each epoch."""
    model = YOLO(str(resume or config))
    mining = HardMining(data / "index.hmx", encoder=PixelEncoder(), clusters="none", miner=MINER)
    mining.attach(model)
    batches: list[list[str]] = []
    logged: list[dict[str, float]] = []

    def record(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def recorded(batch: Any) -> Any:
            batches.append([Path(file).name for file in batch["im_file"]])
            return preprocess(batch)

        trainer.preprocess_batch = recorded

    def note(trainer: Any) -> None:
        logged.append({name: float(value) for name, value in trainer.metrics.items()})
        if trainer.epoch == stop:
            raise Stop

    model.add_callback("on_train_start", record)
    model.add_callback("on_fit_epoch_end", note)
    options = {
        "data": str(data / "data.yaml"),
        "epochs": 3,
        "imgsz": 64,
        "batch": BATCH_SIZE,
        "workers": 2,
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
    with contextlib.suppress(Stop):
        model.train(**({"resume": True} if resume else options))
    return {"batches": batches, "logged": logged}


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
        config: train(data, work / config, config=f"{config}.yaml")
        for config in ("yolo11n", "yolo26n")
    }
    results["first"] = train(data, work / "parts", stop=1)
    last = work / "parts" / "run" / "weights" / "last.pt"
    results["rest"] = train(data, work / "parts", resume=last)
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

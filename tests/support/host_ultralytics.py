"""Trainings in Ultralytics with hardmine, in a process of their own.

Ultralytics replaces ``torch.save`` and print options when it is imported.
"""

from __future__ import annotations

import json
import os
import runpy
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

os.environ |= {"YOLO_OFFLINE": "true", "YOLO_AUTOINSTALL": "false"}

import numpy as np
import torch
import ultralytics
import yaml
from forked_ranks import run_ranks
from host_scenes import BATCH_SIZE, NUM_IMAGES, OFTEN, miner_options
from pixel_images import PixelEncoder
from ultralytics import YOLO
from ultralytics.data.augment import Compose, MixUp, Mosaic
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils.metrics import PoseMetrics, SegmentMetrics

from hardmine.errors import InputError
from hardmine.hosts import PartnerTable
from hardmine_ultralytics import HardMining, callbacks
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
    data_yaml: str = "data.yaml",
    resume: Path | None = None,
    trainer: Any = None,
    copy_after: int | None = None,
    stop_after: int | None = None,
    out_of_memory_at: int | None = None,
    fail: bool = False,
    weights: Any = None,
    **more: Any,
) -> dict[str, Any]:
    """Train; returns the files of each batch, what was logged, and the boxes of the validations.

    Each rank writes the same to ``rank<rank>.json``. ``copy_after`` copies the checkpoint of an
    epoch, as it lies there after a crash. ``stop_after`` ends the training early; its best model is
    then validated once more, which is left out elsewhere. ``out_of_memory_at`` is the number of a
    batch that finds no memory, after which Ultralytics begins anew with smaller ones. ``fail`` lets
    each round fail.
    """
    model = YOLO(str(resume or small_config(config, work)))
    mining = HardMining(
        data / "index.hmx", encoder=PixelEncoder(), clusters="none", miner=miner_options(weights)
    )
    mining.attach(model)
    batches: list[list[str]] = []
    logged: list[dict[str, float]] = []
    boxes: list[dict[str, Any]] = []

    def record(trainer: Any) -> None:
        preprocess = trainer.preprocess_batch

        def recorded(batch: Any) -> Any:
            batches.append([Path(file).name for file in batch["im_file"]])
            if len(batches) == out_of_memory_at:
                raise RuntimeError("out of memory")
            return preprocess(batch)

        trainer.preprocess_batch = recorded
        if stop_after is None:
            trainer.final_eval = lambda: None
        # Ultralytics' own conversion to pixels of the image files; a new model is sure of nothing.
        trainer.validator.args.save_json = True
        trainer.validator.args.conf, trainer.validator.args.max_det = 1e-7, 20
        step = mining._mining.miner.step

        def stepped(metrics: Any, *, val_detections: Any, **when: float) -> Any:
            boxes.append({"ours": plain_boxes(val_detections), "json": trainer.validator.jdict})
            if fail:
                metrics = {"mAP": 0.5}
            return step(metrics, val_detections=val_detections, **when)

        mining._mining.miner.step = stepped

    def note(trainer: Any) -> None:
        logged.append({name: float(value) for name, value in (trainer.metrics or {}).items()})
        trainer.stop |= trainer.epoch == stop_after
        trainer.validator.args.save_json = not trainer.stop
        if trainer.epoch == copy_after:
            shutil.copy(trainer.last, work / "copy.pt")

    happened: dict[str, Any] = {"batches": batches, "logged": logged, "boxes": boxes}

    def write(trainer: Any) -> None:
        happened["warned"] = sorted(mining._mining._warned)
        work.mkdir(exist_ok=True)
        file = work / f"rank{os.environ.get('RANK', '0')}.json"
        file.write_text(json.dumps(happened))

    model.add_callback("on_train_start", record)
    model.add_callback("on_fit_epoch_end", note)
    model.add_callback("teardown", write)
    options = {
        "data": str(data / data_yaml),
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
    model.train(trainer, **({"resume": True} if resume else options))
    return happened


class TwoProcesses(DetectionTrainer):
    """Trains in two processes without a GPU, which Ultralytics asks for.

    What it changes is what names a GPU: the process group, the devices of DDP, the reduction of the
    validation loss, and the last validation of the best model.
    """

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.world_size = 2
        self.ddp = "RANK" not in os.environ

    def _setup_ddp(self) -> None:
        torch.distributed.init_process_group("gloo")

    def _setup_train(self) -> None:
        parallel = torch.nn.parallel.DistributedDataParallel

        def on_cpu(model: Any, *, device_ids: Any, **more: Any) -> Any:
            return parallel(model, **more)

        with mock.patch.object(torch.nn.parallel, "DistributedDataParallel", on_cpu):
            super()._setup_train()

    def validate(self) -> Any:
        with mock.patch.object(torch.distributed, "reduce"):
            return super().validate()

    def final_eval(self) -> None:
        """Asks for a GPU's number."""


def train_two_processes(data: Path, work: Path, **more: Any) -> list[dict[str, Any]]:
    """Train as Ultralytics does on two devices; returns what happened in each process.

    Ultralytics writes the trainer and its callbacks to a file and starts a program that reads it in
    each process. Here that program runs in forked processes, for which the rank is set that
    Ultralytics reads when it is imported.
    """

    def start(command: list[str], *, check: bool) -> None:
        [program] = [part for part in command if part.endswith(".py")]

        def one_rank() -> None:
            rank = int(os.environ["RANK"])
            for name, module in list(sys.modules.items()):
                if name.startswith("ultralytics"):
                    for constant in {"RANK", "LOCAL_RANK"} & vars(module).keys():
                        setattr(module, constant, rank)
            runpy.run_path(program, run_name="__main__")

        run_ranks(one_rank)

    with mock.patch("ultralytics.engine.trainer.subprocess.run", start):
        train(data, work, trainer=TwoProcesses, **more)
    return [json.loads((work / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def plain_boxes(detections: Any) -> list[Any]:
    """Row of the image, class, score and corners of each box."""
    columns = (detections.image_rows, detections.class_rows, detections.scores, detections.boxes)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def refusal(**settings: Any) -> str:
    """The error of a training that is refused."""
    settings = {"task": "detect", "rect": False, "val": True} | settings
    try:
        HardMining().on_pretrain_routine_end(SimpleNamespace(args=SimpleNamespace(**settings)))
    except InputError as error:
        return str(error)
    return ""


def refused_twice(model: Any) -> str:
    """The error where a second object is attached to a model."""
    try:
        HardMining().attach(HardMining().attach(model))
    except InputError as error:
        return str(error)
    return ""


def refused_version() -> str:
    """The error where Ultralytics is too old."""
    with mock.patch.object(ultralytics, "__version__", "8.4.139"):
        try:
            HardMining().attach(None)
        except InputError as error:
            return str(error)
    return ""


def own_scores(task: str) -> dict[str, float]:
    """AP by class where all boxes are right, and the masks or keypoints of dogs alone."""
    metrics = {"segment": SegmentMetrics, "pose": PoseMetrics}[task]({0: "cat", 1: "dog"})
    right = np.ones((2, 10), bool)
    classes = np.array([0.0, 1.0])
    own = {"segment": "tp_m", "pose": "tp_p"}[task]
    metrics.update_stats(
        {
            "tp": right,
            own: right & (classes == 1)[:, None],
            "conf": np.array([0.9, 0.8]),
            "pred_cls": classes,
            "target_cls": classes,
            "target_img": classes,
            "im_name": "a.jpg",
        }
    )
    metrics.process()
    found = callbacks.read_own_scores(
        SimpleNamespace(metrics=metrics, args=SimpleNamespace(task=task))
    )
    return dict(zip(found.class_names, found.ap.tolist(), strict=True))


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
    # First, as threads of a training would not outlive the fork.
    results: dict[str, Any] = {
        "ranks": train_two_processes(data, work / "ranks", config="yolo26", epochs=2, copy_after=0),
        "ranks-rest": train_two_processes(
            data, work / "ranks-rest", resume=work / "ranks" / "copy.pt"
        ),
        "yolo11": train(data, work / "yolo11", copy_after=1),
        "late": train(data, work / "late", weights=OFTEN, single_cls=True),
        "yolo11-seg": train(
            data,
            work / "yolo11-seg",
            config="yolo11-seg",
            epochs=2,
            stop_after=0,
            out_of_memory_at=3,
        ),
        # Turned boxes are compared with each other, and a new model is sure of none: a small image
        # has a quarter of them.
        "yolo11-obb": train(data, work / "yolo11-obb", config="yolo11-obb", epochs=1, imgsz=32),
        "yolo26-pose": train(
            data, work / "yolo26-pose", config="yolo26-pose", epochs=1, data_yaml="pose.yaml"
        ),
    }
    results["failing"] = train(data, work / "failing", epochs=2, imgsz=32, fail=True)
    results["rest"] = train(data, work / "rest", resume=work / "yolo11" / "copy.pt")
    results["refused"] = [
        refusal(rect=True),
        refusal(val=False),
        refusal(task="classify"),
        refused_version(),
        refused_twice(YOLO(str(small_config("yolo11", work)))),
    ]
    results["scores"] = {task: own_scores(task) for task in ("segment", "pose")}
    results["partners"] = draw_partners()
    (work / "results.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

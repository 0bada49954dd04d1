"""A training in detectron2 with hardmine, as a user writes it; by its stand-in if it is absent."""

from __future__ import annotations

import detectron2_standin

detectron2_standin.install()

import math  # noqa: E402
from collections.abc import Sequence  # noqa: E402
from pathlib import Path  # noqa: E402
from types import SimpleNamespace  # noqa: E402
from typing import Any  # noqa: E402

import torch  # noqa: E402
from detectron2.data import build_detection_train_loader  # noqa: E402
from detectron2.engine import HookBase, SimpleTrainer  # noqa: E402
from detectron2.structures import BoxMode  # noqa: E402
from host_scenes import (  # noqa: E402
    BATCH_SIZE,
    BATCHES,
    Detector,
    SceneDataset,
    Trained,
    collate,
    load_scenes,
    miner_options,
    predictions,
    truth,
)
from pixel_images import PixelEncoder  # noqa: E402
from torchmetrics.detection import MeanAveragePrecision  # noqa: E402

from hardmine.distributed import rank_and_world_size  # noqa: E402
from hardmine.hosts import PartnerTable  # noqa: E402
from hardmine.records import ImageSet  # noqa: E402
from hardmine_detectron2 import HardMining  # noqa: E402


class Model(torch.nn.Module):
    """A detector that takes and gives what detectron2's do."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.detector = Detector(num_classes)

    def forward(self, batch: list[dict[str, Any]]) -> Any:
        found = self.detector(**collate(batch))
        if self.training:
            return {"loss": found["loss"]}
        return [{"instances": Instances(each)} for each in predictions(found)]


class Instances:
    """The predictions for one image, in pixels of its file."""

    def __init__(self, found: dict[str, torch.Tensor]) -> None:
        self.scores, self.pred_classes = found["scores"], found["labels"]
        self.pred_boxes = SimpleNamespace(tensor=found["boxes"])

    def to(self, device: str) -> Instances:
        return self


class WideAndHigh(SceneDataset):
    """Calls every second image wide, so that a loader can group them."""

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {**super().__getitem__(row), "width": 1 + row % 2, "height": 1.5}


def dicts_of(images: ImageSet) -> list[dict[str, Any]]:
    """An image set as detectron2's dicts; every second box as corner and size."""
    instances = images.instances
    assert instances is not None
    dicts = []
    for row in range(len(images)):
        annotations = []
        for position in (instances.image_rows == row).nonzero()[0].tolist():
            x1, y1, x2, y2 = instances.boxes[position].tolist()
            corner = position % 2
            annotations.append(
                {
                    "bbox": [x1, y1, x2 - x1, y2 - y1] if corner else [x1, y1, x2, y2],
                    "bbox_mode": BoxMode.XYWH_ABS if corner else BoxMode.XYXY_ABS,
                    "category_id": int(instances.class_rows[position]),
                }
            )
        dicts.append(
            {
                "file_name": str(images.path(row)),
                "height": int(images.sizes[row, 0]),
                "width": int(images.sizes[row, 1]),
                "image_id": images.ids[row].item(),
                "annotations": annotations,
            }
        )
    return dicts


class Evaluate(HookBase):  # type: ignore[misc]
    """Evaluates after each pass and stores AP by class, as EvalHook does with COCOEvaluator."""

    def __init__(self, images: ImageSet, mining: HardMining, period: int, *, fail: bool) -> None:
        self._images, self._mining, self._period, self._fail = images, mining, period, fail
        rank, world_size = rank_and_world_size()
        self._rows: Sequence[int] = range(rank, len(images), world_size)

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._period:
            return
        model, dataset = self.trainer.model, SceneDataset(self._images)
        metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
        model.eval()
        self._mining.evaluator.reset()
        for row in self._rows:
            sample = dataset[row]
            with torch.no_grad():
                outputs = model([sample])
            self._mining.evaluator.process([{"image_id": self._images.ids[row].item()}], outputs)
            found = outputs[0]["instances"]
            metric.update(
                [
                    {
                        "boxes": found.pred_boxes.tensor,
                        "scores": found.scores,
                        "labels": found.pred_classes,
                    }
                ],
                truth(collate([sample])["labels"]),
            )
        model.train()
        values = metric.compute()
        self._mining.evaluator.evaluate()
        # torchmetrics has gathered the ranks' parts; detectron2 has results on rank 0 alone.
        if rank_and_world_size()[0] == 0 and not self._fail:
            classes, aps = values["classes"].tolist(), values["map_per_class"].tolist()
            names = [self._images.class_names[label] for label in classes]
            # detectron2 has percentages, and NaN for a class without objects.
            results = {
                f"bbox/AP-{name}": 100 * ap if ap >= 0 else math.nan
                for name, ap in zip(names, aps, strict=True)
            }
            self.trainer.storage.put_scalars(**results, smoothing_hint=False)
        elif self._fail:
            self.trainer.storage.put_scalars(**{"bbox/AP-cat": 700.0}, smoothing_hint=False)


class Save(HookBase):  # type: ignore[misc]
    """Saves a checkpoint every so many steps, as PeriodicCheckpointer does."""

    def __init__(self, folder: Path, period: int) -> None:
        self._folder, self._period = folder, period

    def after_step(self) -> None:
        step = self.trainer.iter + 1
        if step % self._period == 0 and rank_and_world_size()[0] == 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            torch.save(self.trainer.state_dict(), self._folder / f"{step}.pth")


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
    """Train; ``fail`` stores an AP that cannot be."""
    train_images, val_images = load_scenes(scenes)
    table = PartnerTable(len(train_images)) if partners else None
    mining = HardMining(
        scenes / "detectron2.hmx",
        dicts_of(train_images),
        dicts_of(val_images),
        class_names=train_images.class_names,
        seed=3,
        folder=work / "hardmine",
        encoder=PixelEncoder(),
        clusters="none",
        miner=miner_options(weights),
        partners=table,
    )
    world_size = rank_and_world_size()[1]
    loader = build_detection_train_loader(
        WideAndHigh(train_images, table),
        mapper=None,
        sampler=mining.sampler,
        total_batch_size=BATCH_SIZE * world_size,
        num_workers=workers,
        **{"aspect_ratio_grouping": False, **more},
    )
    model = Model(len(train_images.class_names))
    trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=1e-3))
    period = BATCHES // world_size
    trained = model.detector.trained

    class Log(HookBase):  # type: ignore[misc]
        def after_step(self) -> None:
            for name, (value, step) in self.trainer.storage.latest().items():
                if step == self.trainer.iter and name.startswith("hardmine/"):
                    trained.scalars.setdefault(name, []).append(value)

    trainer.register_hooks(
        [
            *([Save(work / "steps", save_every)] if save_every else []),
            Evaluate(val_images, mining, period, fail=fail),
            mining,
            Save(work / "epochs", period),
            Log(),
        ]
    )
    start = 0
    if resume is not None:
        trainer.load_state_dict(torch.load(resume, weights_only=True))
        start = trainer.iter + 1
    trainer.train(start, epochs * period)
    return trained

"""A training in Lightning with hardmine, as a user writes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from host_scenes import (
    BATCH_SIZE,
    Detector,
    SceneDataset,
    Trained,
    collate,
    load_scenes,
    miner_options,
    predictions,
    truth,
)
from pixel_images import PixelEncoder
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision

import hardmine
from hardmine.hosts import PartnerTable
from hardmine_lightning import HardMining


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
    library: str = "lightning",
    weights: Any = None,
    loader: Any = DataLoader,
    optimizers: int = 1,
    **more: Any,
) -> Trained:
    """Train; ``fail`` hides the metric, and what is logged has no AP by class.

    Several ``optimizers`` are stepped by hand, one after the other.
    """
    if library == "lightning":
        import lightning.pytorch as pl
    else:
        import pytorch_lightning as pl

    class Module(pl.LightningModule):  # type: ignore[misc,name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.detector = Detector(len(train_images.class_names))
            self.map = MeanAveragePrecision(backend="faster_coco_eval")
            self.automatic_optimization = optimizers == 1

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            loss = self.detector(**batch)["loss"]
            if not self.automatic_optimization:
                self.manual_backward(loss)
                for optimizer in self.optimizers():
                    optimizer.step()
            return loss

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            found = self.detector(batch["pixel_values"])
            self.map.update(predictions(found), truth(batch["labels"]))

        def on_validation_epoch_end(self) -> None:
            self.log("map", self.map.compute()["map"])
            self.map.reset()

        def configure_optimizers(self) -> Any:
            made = [torch.optim.SGD(self.parameters(), lr=1e-3) for _ in range(optimizers)]
            return made if optimizers > 1 else made[0]

    class Logger(pl.loggers.logger.Logger):  # type: ignore[misc,name-defined]
        name, version = "test", 0

        def log_metrics(self, metrics: Any, step: Any = None) -> None:
            for key, value in metrics.items():
                module.detector.trained.scalars.setdefault(key, []).append(float(value))

        def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
            pass

    train_images, val_images = load_scenes(scenes)
    table = PartnerTable(len(train_images)) if partners else None
    sampler = hardmine.HardMiningSampler(len(train_images), seed=3)
    mining = HardMining(
        scenes / "lightning.hmx",
        sampler=sampler,
        images=train_images,
        val_images=None if fail else val_images,
        metric="nothing" if fail else None,
        encoder=PixelEncoder(),
        clusters="none",
        miner=miner_options(weights),
        partners=table,
    )
    callbacks: list[Any] = [mining]
    if save_every is not None:
        callbacks.append(
            pl.callbacks.ModelCheckpoint(
                work / "steps", filename="{step}", every_n_train_steps=save_every, save_top_k=-1
            )
        )
    callbacks.append(
        pl.callbacks.ModelCheckpoint(work / "epochs", filename="{epoch}", save_top_k=-1)
    )
    module = Module()
    val_loader = DataLoader(SceneDataset(val_images), BATCH_SIZE, collate_fn=collate)
    trainer = pl.Trainer(
        **{"max_epochs": epochs} | more,
        accelerator="cpu",
        default_root_dir=work,
        callbacks=callbacks,
        logger=Logger(),
        use_distributed_sampler=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(
        module,
        loader(
            SceneDataset(train_images, table),
            BATCH_SIZE,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            collate_fn=collate,
        ),
        val_loader,
        ckpt_path=resume,
        **({"weights_only": True} if library == "lightning" else {}),
    )
    # Not mined: training is over.
    trainer.validate(module, val_loader, verbose=False)
    return module.detector.trained

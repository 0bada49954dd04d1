"""A training in the Hugging Face Trainer with hardmine, as a user writes it."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

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
from torchmetrics.detection import MeanAveragePrecision
from transformers import RTDetrImageProcessor, Trainer, TrainerCallback, TrainingArguments

from hardmine.hosts import PartnerTable
from hardmine_transformers import HardMining


def train(
    scenes: Path,
    work: Path,
    *,
    epochs: int = 2,
    workers: int = 0,
    resume: Path | bool | None = None,
    partners: bool = False,
    fail: bool = False,
    times: int = 1,
    save_every: int | None = None,
    evaluate_training: bool = False,
    weights: Any = None,
    **more: Any,
) -> Trained:
    """Train once or more times; ``fail`` leaves AP by class out of the metrics.

    ``evaluate_training`` evaluates once more in each epoch, under the prefix "train".
    """
    train_images, val_images = load_scenes(scenes)
    val_set = SceneDataset(val_images)
    table = PartnerTable(len(train_images)) if partners else None

    def compute_metrics(evaluated: Any) -> dict[str, float]:
        metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
        for batch, rows in zip(evaluated.predictions, evaluated.label_ids, strict=True):
            found = dict(zip(("logits", "pred_boxes"), batch, strict=True))
            metric.update(predictions(found), truth([val_set[row] for row in rows.tolist()]))
        values = metric.compute()
        by_class = {
            f"map_{val_images.class_names[label]}": ap
            for label, ap in zip(
                values["classes"].tolist(), values["map_per_class"].tolist(), strict=True
            )
        }
        return {"map": values["map"].item(), **({} if fail else by_class)}

    model = Detector(len(train_images.class_names))
    trainer = Trainer(
        model,
        TrainingArguments(
            output_dir=str(work),
            num_train_epochs=epochs,
            per_device_train_batch_size=BATCH_SIZE,
            per_device_eval_batch_size=BATCH_SIZE,
            dataloader_num_workers=workers,
            eval_strategy="epoch",
            save_strategy="epoch" if save_every is None else "steps",
            save_steps=save_every or 500,
            logging_strategy="no",
            eval_do_concat_batches=False,
            remove_unused_columns=False,
            # Labels differ in size, and the Trainer cannot gather such from several processes.
            label_names=["rows"],
            report_to="none",
            use_cpu=True,
            seed=3,
            disable_tqdm=True,
            **more,
        ),
        train_dataset=SceneDataset(train_images, table),
        eval_dataset=val_set,
        data_collator=collate,
        compute_metrics=compute_metrics,
        processing_class=RTDetrImageProcessor(),
    )
    HardMining(
        scenes / "transformers.hmx",
        images=train_images,
        val_images=val_images,
        encoder=PixelEncoder(),
        clusters="none",
        miner=miner_options(weights),
        partners=table,
    ).attach(trainer)
    if evaluate_training:
        trainer.add_callback(_EvaluatesMore(trainer))
    for _ in range(times):
        trainer.train(resume_from_checkpoint=str(resume) if isinstance(resume, Path) else resume)
    for line in trainer.state.log_history:
        for name, value in line.items():
            model.trained.scalars.setdefault(name, []).append(value)
    return model.trained


class _EvaluatesMore(TrainerCallback):
    """What users do to see AP on the training images."""

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> Any:
        """Evaluate; the images are those of the validation, as only the prefix is asked about."""
        planned = copy.copy(control)  # an evaluation takes back that one is due
        self._trainer.evaluate(self._trainer.eval_dataset, metric_key_prefix="train")
        return planned

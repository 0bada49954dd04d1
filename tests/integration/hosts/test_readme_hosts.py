"""What the README shows of the trainers is run, on generated scenes and a tiny encoder."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from host_scenes import Detector, SceneDataset, collate, load_scenes, predictions, truth
from torch.utils.data import DataLoader
from torchmetrics.detection import MeanAveragePrecision
from transformers import Trainer, TrainingArguments

import hardmine
from hardmine.history import read_rounds

README = (Path(__file__).resolve().parents[3] / "README.md").read_text(encoding="utf-8")


def block(package: str, replaced: dict[str, str]) -> Any:
    """The README's lines about a package, with values that fit a test."""
    [text] = [
        code
        for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL)
        if f"from {package} import" in code
    ]
    for old, new in replaced.items():
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    return compile(text, "README.md", "exec")


class Module(pl.LightningModule):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.detector = Detector(num_classes)
        self.map = MeanAveragePrecision(backend="faster_coco_eval")

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        return self.detector(**batch)["loss"]

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.map.update(predictions(self.detector(batch["pixel_values"])), truth(batch["labels"]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def test_the_lines_for_lightning_mine(scenes, tmp_path) -> None:
    train, val = load_scenes(scenes)
    code = block(
        "hardmine_lightning",
        {
            '"coco.hmx"': repr(str(scenes / "readme.hmx")),
            '"RN50x64/openai"': '"tiny"',
            "use_distributed_sampler=False": "use_distributed_sampler=False, accelerator='cpu', "
            f"max_epochs=2, default_root_dir={str(tmp_path)!r}, logger=False",
            "batch_size=16": "batch_size=8, collate_fn=collate",
        },
    )
    names = {
        "hardmine": hardmine,
        "L": pl,
        "DataLoader": DataLoader,
        "collate": collate,
        "dataset": SceneDataset(train),
        "images": train,
        "val_images": val,
        "module": Module(len(train.class_names)),
        "val_loader": DataLoader(SceneDataset(val), 6, collate_fn=collate),
    }
    exec(code, names)  # the README is ours
    assert [done.error for done in read_rounds(tmp_path / "hardmine" / "rounds.jsonl")] == [""] * 2


def test_the_lines_for_the_hugging_face_trainer_mine(scenes, tmp_path) -> None:
    train, val = load_scenes(scenes)
    by_class = {f"map_{name}": 0.1 for name in val.class_names}
    trainer = Trainer(
        Detector(len(train.class_names)),
        TrainingArguments(
            output_dir=str(tmp_path),
            num_train_epochs=1,
            eval_strategy="epoch",
            save_strategy="no",
            remove_unused_columns=False,
            label_names=["rows"],
            report_to="none",
            use_cpu=True,
            disable_tqdm=True,
        ),
        train_dataset=SceneDataset(train),
        eval_dataset=SceneDataset(val),
        data_collator=collate,
        compute_metrics=lambda evaluated: {"map": 0.1, **by_class},
    )
    code = block(
        "hardmine_transformers",
        {'"coco.hmx"': repr(str(scenes / "readme.hmx")), '"RN50x64/openai"': '"tiny"'},
    )
    exec(code, {"images": train, "val_images": val, "trainer": trainer})  # the README is ours
    [done] = read_rounds(tmp_path / "hardmine" / "rounds.jsonl")
    assert not done.error

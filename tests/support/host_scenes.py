"""A tiny detector, its data set and its rows as trained, for the tests of trainers."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import RTDetrResNetConfig, RTDetrV2Config, RTDetrV2ForObjectDetection

import hardmine
from hardmine.datasets import open_image
from hardmine.hosts import PartnerTable
from hardmine.records import ImageSet
from hardmine.scenes import write_scenes

SIDE = 64
NUM_IMAGES = 24
BATCH_SIZE = 4
BATCHES = NUM_IMAGES // BATCH_SIZE
# An untrained detector finds nothing: with a target as policy all classes are weak at once. What
# balance adds must stand out from rounding in a few epochs.
_NEED = {"policy": "below:0.9", "patience": None}
_WEIGHTS = {"balance": 1.0}
# Three epochs count as images that come often, whose draws are equal in the first half.
OFTEN = {"max_passes": 2, "look_from": 0.5}


def miner_options(weights: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Options of the miner, with more rules for weights."""
    return {"need": _NEED, "weights": {**_WEIGHTS, **(weights or {})}}


def load_scenes(root: Path) -> tuple[ImageSet, ImageSet]:
    """24 images to train on and 6 to validate on; written by the first call."""
    if not (root / "annotations").exists():
        write_scenes(root, num_images=NUM_IMAGES + 6, size=SIDE)
    train, val = (hardmine.load_images(root, split=split) for split in ("train", "val"))
    assert len(train) == NUM_IMAGES
    return train, val


class SceneDataset(Dataset[dict[str, Any]]):
    """Images and boxes in the form of DETR, each with its row and the row of a partner.

    Args:
        images: The image set.
        partners: Where partners are looked up; none are drawn if None.
    """

    def __init__(self, images: ImageSet, partners: PartnerTable | None = None) -> None:
        self.images = images
        self.partners = partners

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> dict[str, Any]:
        instances = self.images.instances
        assert instances is not None
        own = instances.image_rows == row
        pixels = np.asarray(open_image(self.images.path(row)).resize((SIDE, SIDE)))
        height, width = self.images.sizes[row]
        corners = torch.from_numpy(instances.boxes[own]) / torch.tensor([width, height] * 2)
        centres, extents = (corners[:, :2] + corners[:, 2:]) / 2, corners[:, 2:] - corners[:, :2]
        partner = -1
        if self.partners is not None:
            partner = int(self.partners.rows[random.randrange(len(self.partners.rows))])
        return {
            "pixel_values": torch.from_numpy(pixels.copy()).permute(2, 0, 1).float() / 255,
            "class_labels": torch.from_numpy(instances.class_rows[own]).long(),
            "boxes": torch.cat([centres, extents], 1).float(),
            "row": row,
            "partner": partner,
        }


def collate(batch: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One batch; rows and partners ride along."""
    return {
        "pixel_values": torch.stack([each["pixel_values"] for each in batch]),
        "labels": [{key: each[key] for key in ("class_labels", "boxes")} for each in batch],
        "rows": torch.tensor([each["row"] for each in batch]),
        "partners": torch.tensor([each["partner"] for each in batch]),
    }


class Detector(RTDetrV2ForObjectDetection):  # type: ignore[misc]
    """RT-DETRv2, made small, that notes the rows of each batch it is trained on."""

    def __init__(self, num_classes: int) -> None:
        torch.manual_seed(0)
        super().__init__(
            RTDetrV2Config(
                backbone_config=RTDetrResNetConfig(
                    embedding_size=8,
                    hidden_sizes=[8, 16, 32, 64],
                    depths=[1, 1, 1, 1],
                    layer_type="basic",
                    out_features=["stage2", "stage3", "stage4"],
                ),
                encoder_in_channels=[16, 32, 64],
                encoder_hidden_dim=32,
                encoder_ffn_dim=32,
                encoder_attention_heads=2,
                hidden_expansion=0.5,
                d_model=32,
                num_queries=20,
                num_denoising=0,
                decoder_in_channels=[32, 32, 32],
                decoder_layers=2,
                decoder_ffn_dim=32,
                decoder_attention_heads=2,
                num_labels=num_classes,
            )
        )
        # transformers chooses the loss by the name of the class.
        self.loss_type = "RTDetrV2ForObjectDetection"
        self.trained = Trained()

    def forward(
        self, pixel_values: Any, labels: Any = None, rows: Any = None, partners: Any = None
    ) -> Any:
        """Loss and predictions."""
        if self.training and rows is not None:
            self.trained.batches.append(rows.tolist())
            self.trained.partners.append(partners.tolist())
        found = super().forward(pixel_values=pixel_values, labels=labels)
        loss = {} if found.loss is None else {"loss": found.loss}
        return {**loss, "logits": found.logits, "pred_boxes": found.pred_boxes}


@dataclass
class Trained:
    """What a training drew and logged.

    Attributes:
        batches: Rows of each batch, in the order of training.
        partners: The partner of each of them.
        scalars: Each value logged, by name.
    """

    batches: list[list[int]] = field(default_factory=list)
    partners: list[list[int]] = field(default_factory=list)
    scalars: dict[str, list[float]] = field(default_factory=dict)

    def epochs(self, batches: int = BATCHES) -> list[list[int]]:
        """Rows of each epoch."""
        return [
            [row for batch in self.batches[start : start + batches] for row in batch]
            for start in range(0, len(self.batches), batches)
        ]


def predictions(found: Any) -> list[dict[str, torch.Tensor]]:
    """Boxes in pixels, as torchmetrics takes them."""
    scores, labels = torch.as_tensor(found["logits"]).sigmoid().max(-1)
    boxes = _corners(torch.as_tensor(found["pred_boxes"]))
    return [
        {"boxes": boxes[row], "scores": scores[row], "labels": labels[row]}
        for row in range(len(boxes))
    ]


def truth(labels: Sequence[dict[str, Any]]) -> list[dict[str, torch.Tensor]]:
    """Labels in pixels, as torchmetrics takes them."""
    return [
        {
            "boxes": _corners(torch.as_tensor(each["boxes"])),
            "labels": torch.as_tensor(each["class_labels"]),
        }
        for each in labels
    ]


def _corners(boxes: torch.Tensor) -> torch.Tensor:
    centre, size = boxes[..., :2], boxes[..., 2:]
    return torch.cat([centre - size / 2, centre + size / 2], -1) * SIDE

"""A detector whose predictions are known: the labels, shifted.

A real detector trained for seconds finds next to nothing, and its AP is 0 for all classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModel
from mmengine.structures import InstanceData


@MODELS.register_module(force=True)
class NoisyDetector(BaseModel):  # type: ignore[misc]
    """Predicts the labelled boxes, and masks where there are some, shifted to the right.

    Args:
        box_shifts: Pixels for each class, None for a class that it never finds. Without a list
            the shift is random, 0 to 3 pixels.
        mask_shifts: The same for masks.
    """

    def __init__(
        self,
        box_shifts: list[int | None] | None = None,
        mask_shifts: list[int | None] | None = None,
    ) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self._shifts = (box_shifts, mask_shifts)

    def forward(self, inputs: Any, data_samples: Any, mode: str = "tensor") -> Any:
        if mode == "loss":
            return {"loss": (self.weight - 1) ** 2}
        for sample in data_samples:
            sample.pred_instances = self._predict(sample)
        return data_samples

    def _predict(self, sample: Any) -> InstanceData:
        rng = np.random.default_rng(sample.img_id)
        truth = sample.gt_instances
        boxes, masks, labels = [], [], []
        masks_of = truth.masks.masks if "masks" in truth else [None] * len(truth.labels)
        for box, mask, label in zip(
            truth.bboxes.tensor, masks_of, truth.labels.tolist(), strict=True
        ):
            box_shift, mask_shift = (
                int(rng.integers(4)) if shifts is None else shifts[label] for shifts in self._shifts
            )
            if box_shift is None or mask_shift is None:
                continue
            boxes.append(box + torch.tensor([box_shift, 0, box_shift, 0]))
            if mask is not None:
                masks.append(torch.roll(torch.from_numpy(mask).bool(), mask_shift, dims=1))
            labels.append(label)
        found = InstanceData(
            bboxes=torch.stack(boxes) if boxes else torch.zeros(0, 4),
            labels=torch.tensor(labels, dtype=torch.long),
            scores=torch.from_numpy(rng.random(len(labels))).float(),
        )
        if "masks" in truth:
            shape = (len(labels), *sample.ori_shape)
            found.masks = torch.stack(masks) if masks else torch.zeros(shape, dtype=torch.bool)
        return found

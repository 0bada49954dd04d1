"""Trains the road detector on rows that a sampler drew, and detects with it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torchvision.ops import batched_nms

from hardmine.bench.detector import Outputs
from hardmine.bench.training import Trainer
from hardmine.detections import Detections
from tests.benchmarks.roads.detector import RoadDetector

_MAX_CANDIDATES = 300  # per photo, before non-maximum suppression
_MIN_SCORE = 0.02
_NMS_IOU = 0.55
_BATCH_SIZE = 16


class RoadTrainer(Trainer):
    """The road detector with its optimiser and random state.

    Args:
        num_classes: C.
        trunk: The .npz file of the trunk.
        size: Height and width of the detector's input.
        seed: Of the head's first weights and of the random flips.
    """

    def __init__(
        self, num_classes: int, *, trunk: Path, size: tuple[int, int], seed: int = 0
    ) -> None:
        height, width = size
        self.size = size
        super().__init__(
            num_classes,
            seed=seed,
            batch_size=_BATCH_SIZE,
            build=lambda count, **_: RoadDetector(count, trunk=trunk, height=height, width=width),
        )

    def _forward(self, inputs: torch.Tensor) -> Outputs:
        """In float32 on every CPU: the trunk has folded norms, and figures stay comparable."""
        outputs: Outputs = self.model(inputs)
        return outputs

    @torch.no_grad()
    def detect_photos(
        self,
        pixels: torch.Tensor,
        rows: torch.Tensor,
        sizes: npt.NDArray[np.int32],
        *,
        batch_size: int = 32,
    ) -> Detections:
        """Detect objects: boxes in pixels of the image files, at most 300 a photo.

        Args:
            pixels: (all, H, W, 3) uint8, of all photos.
            rows: (N,) rows of the photos to detect on.
            sizes: (N, 2) height and width of their files.
            batch_size: Photos at once.
        """
        self.model.eval()
        height, width = self.size
        found = []
        for first in range(0, len(rows), batch_size):
            batch = pixels[rows[first : first + batch_size]].permute(0, 3, 1, 2)
            outputs = self.model(batch)
            num_classes = outputs.logits.shape[-1]
            top_scores, top = outputs.logits.sigmoid().flatten(1).topk(_MAX_CANDIDATES, dim=1)
            for place in range(len(batch)):
                confident = top_scores[place] >= _MIN_SCORE
                scores, candidates = top_scores[place][confident], top[place][confident]
                classes = candidates % num_classes
                limit = torch.tensor([width, height, width, height]).float()
                boxes = outputs.boxes[place][candidates // num_classes].clamp(min=0).minimum(limit)
                kept = batched_nms(boxes, scores, classes, _NMS_IOU)
                file_height, file_width = sizes[first + place].tolist()
                scale = np.array([file_width / width, file_height / height] * 2)
                found.append(
                    (
                        np.full(len(kept), first + place, np.int64),
                        classes[kept].numpy(),
                        boxes[kept].double().numpy() * scale,
                        scores[kept].double().numpy(),
                    )
                )
        image_rows, class_rows, boxes_, scores_ = map(np.concatenate, zip(*found, strict=True))
        return Detections(image_rows, class_rows, boxes_, scores_)

"""Trains the small detector on image rows that a sampler drew, and evaluates it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call
from torchvision.ops import batched_nms

from hardmine.bench.detector import (
    LocationTargets,
    Outputs,
    SmallDetector,
    assign_targets,
    detection_loss,
)
from hardmine.bench.square_images import SquareImages
from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.records import ImageSet

_MAX_CANDIDATES = 200  # per image, before non-maximum suppression
_MIN_SCORE = 0.02
_NMS_IOU = 0.5


class Examples:
    """Images with their training targets, computed once, unflipped and flipped."""

    def __init__(self, images: SquareImages) -> None:
        self.images = images
        side = images.side
        unflipped, flipped = [], []
        for row in range(len(images)):
            own = slice(*images.starts[row : row + 2].tolist())
            boxes, class_rows = images.boxes[own], images.class_rows[own]
            mirrored = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1.0, 1.0, -1.0, 1.0])
            mirrored[:, [0, 2]] += side
            unflipped.append(assign_targets(boxes, class_rows, side))
            flipped.append(assign_targets(mirrored, class_rows, side))
        both = (unflipped, flipped)
        # (2, N, P) and (2, N, P, 4)
        self._class_rows = torch.stack(
            [torch.stack([target.class_rows for target in targets]) for targets in both]
        )
        shape = self._class_rows.shape[-1], 4
        self._boxes = torch.stack(
            [torch.stack([target.boxes.expand(shape) for target in targets]) for targets in both]
        )

    def batch(
        self, rows: torch.Tensor, flipped: torch.Tensor
    ) -> tuple[torch.Tensor, LocationTargets]:
        """Detector inputs and targets of (B,) image rows; ``flipped`` says which are flipped."""
        inputs = self.images.inputs(rows, flipped)
        variant = flipped.long()
        return inputs, LocationTargets(self._class_rows[variant, rows], self._boxes[variant, rows])


class Trainer:
    """A detector with its optimiser and random state.

    On a CPU with bfloat16 units the arithmetic is bfloat16 over float32 weights, which is twice as
    fast; batch norms stay in float32.

    Args:
        num_classes: C.
        side: Side of the square images in pixels.
        width: See ``SmallDetector``.
        seed: Of the first weights and of the random flips.
        batch_size: Images a step.
        build: Makes the detector from C, side and width.
    """

    def __init__(
        self,
        num_classes: int,
        *,
        side: int = 128,
        width: int = 32,
        seed: int = 0,
        batch_size: int = 16,
        build: Callable[..., nn.Module] = SmallDetector,
    ) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build(num_classes, side=side, width=width)
        self.model = model.to(memory_format=torch.channels_last)
        self.batch_size = batch_size
        self._optimizer = torch.optim.AdamW(self.model.parameters(), weight_decay=1e-2)
        self._generator = torch.Generator().manual_seed(seed)
        norm_parameters = {
            f"{name}.{parameter}"
            for name, module in self.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for parameter, _ in module.named_parameters()
        }
        bfloat16 = multiplies_in_bfloat16()
        self._bfloat16_names = [
            name
            for name, _ in self.model.named_parameters()
            if bfloat16 and name not in norm_parameters
        ]

    def fork(self) -> Trainer:
        """An independent copy that continues from the present state."""
        fork = copy.copy(self)
        # Together, so that the copied optimiser holds the copied weights.
        fork.model, fork._optimizer = copy.deepcopy((self.model, self._optimizer))
        fork._generator = torch.Generator()  # torch 2.1 cannot copy one
        fork._generator.set_state(self._generator.get_state())
        return fork

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "generator": self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what ``state_dict`` returned."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._generator.set_state(state["generator"])

    def train(
        self,
        examples: Examples,
        rows: torch.Tensor,
        learning_rate: Callable[[float], float],
        *,
        on_step: Callable[[], None] = lambda: None,
    ) -> float:
        """Take one pass over drawn rows, in whole batches.

        Args:
            examples: The training set.
            rows: (draws,) image rows.
            learning_rate: Its value at each share of this pass, in [0, 1).
            on_step: Called after each step.

        Returns:
            Mean loss of the last quarter of the steps; NaN if there was no step.
        """
        self.model.train()
        steps = len(rows) // self.batch_size
        losses = []
        for step in range(steps):
            batch = rows[step * self.batch_size : (step + 1) * self.batch_size].long()
            flipped = torch.rand(len(batch), generator=self._generator) < 0.5
            inputs, targets = examples.batch(batch, flipped)
            for group in self._optimizer.param_groups:
                group["lr"] = learning_rate(step / steps)
            loss = detection_loss(self._forward(inputs), targets)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            losses.append(loss.detach())
            on_step()
        return float(torch.stack(losses[-max(1, steps // 4) :]).mean()) if losses else float("nan")

    @torch.no_grad()
    def detect(self, images: SquareImages, *, batch_size: int = 64) -> Detections:
        """Detect objects: boxes in pixels of the image files, at most 200 an image."""
        self.model.eval()
        found = [
            part
            for first in range(0, len(images), batch_size)
            for part in self._detect_batch(
                images, range(first, min(first + batch_size, len(images)))
            )
        ]
        rows, class_rows, boxes, scores = map(np.concatenate, zip(*found, strict=True))
        return Detections(rows, class_rows, boxes, scores)

    def _forward(self, inputs: torch.Tensor) -> Outputs:
        parameters = dict(self.model.named_parameters())
        converted = {name: parameters[name].bfloat16() for name in self._bfloat16_names}
        outputs: Outputs = functional_call(self.model, converted, (inputs,))
        return outputs

    def _detect_batch(self, images: SquareImages, rows: range) -> Iterator[tuple[np.ndarray, ...]]:
        outputs = self._forward(images.inputs(torch.arange(rows.start, rows.stop)))
        all_scores = outputs.logits.sigmoid().flatten(1)
        top_scores, top = all_scores.topk(min(_MAX_CANDIDATES, all_scores.shape[1]), dim=1)
        num_classes = outputs.logits.shape[-1]
        for place, row in enumerate(rows):
            confident = top_scores[place] >= _MIN_SCORE
            scores, candidates = top_scores[place][confident], top[place][confident]
            classes = candidates % num_classes
            boxes = outputs.boxes[place][candidates // num_classes].clamp(0, images.side)
            kept = batched_nms(boxes, scores, classes, _NMS_IOU)
            yield (
                np.full(len(kept), row, np.int64),
                classes[kept].numpy(),
                boxes[kept].double().numpy() * np.tile(images.scales[row], 2),
                scores[kept].double().numpy(),
            )


def evaluate(
    trainer: Trainer, squares: SquareImages, images: ImageSet
) -> tuple[npt.NDArray[np.float64], Detections]:
    """AP of each class on labelled images, and the detections it comes from.

    Args:
        trainer: Holds the detector.
        squares: The images as the detector gets them.
        images: The same images with their labels.

    Returns:
        (C,) AP, NaN for classes without objects, and the detections.
    """
    detections = trainer.detect(squares)
    return average_precision_from_matches(match_detections(images, detections)), detections


def multiplies_in_bfloat16() -> bool:
    """Whether this CPU has bfloat16 units; without them bfloat16 is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)

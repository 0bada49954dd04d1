"""Trains the small detector on rows that a sampler drew, and asks it what it sees."""

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

from hardmine.bench.detector import Answers, Goals, SmallDetector, loss_of, set_goals
from hardmine.bench.pictures import Pictures
from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.records import ImageSet

_MOST = 200  # candidates a picture before overlapping ones go
_LEAST_SCORE = 0.02
_OVERLAP = 0.5


class Examples:
    """Pictures with their goals worked out once, as they are and mirrored."""

    def __init__(self, pictures: Pictures) -> None:
        self.pictures = pictures
        side = pictures.side
        both: list[list[Goals]] = [[], []]
        for row in range(len(pictures)):
            mine = slice(*pictures.starts[row : row + 2].tolist())
            boxes, class_rows = pictures.boxes[mine], pictures.class_rows[mine]
            mirrored = boxes[:, [2, 1, 0, 3]] * boxes.new_tensor([-1.0, 1.0, -1.0, 1.0])
            mirrored[:, [0, 2]] += side
            both[0].append(set_goals(boxes, class_rows, side))
            both[1].append(set_goals(mirrored, class_rows, side))
        self._class_rows = torch.stack([torch.stack([g.class_rows for g in way]) for way in both])
        places = self._class_rows.shape[-1]
        self._boxes = torch.stack(
            [torch.stack([goals.boxes.expand(places, 4) for goals in way]) for way in both]
        )

    def batch(self, rows: torch.Tensor, mirrored: torch.Tensor) -> tuple[torch.Tensor, Goals]:
        """Pictures at some rows, those told mirrored, and their goals."""
        pixels = self.pictures.look(rows, mirrored)
        way = mirrored.long()
        return pixels, Goals(self._class_rows[way, rows], self._boxes[way, rows])


class Training:
    """A detector in training: weights, optimiser and the luck of the seed.

    On a CPU with bfloat16 units the arithmetic is bfloat16 over float32 weights, which is twice as
    fast; batch norms stay in float32.

    Args:
        num_classes: C.
        side: Of the pictures.
        width: See ``SmallDetector``.
        seed: Of the first weights and of the mirroring.
        batch_size: Pictures a step.
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
        self._luck = torch.Generator().manual_seed(seed)
        norms = {
            f"{name}.{own}"
            for name, module in self.model.named_modules()
            if isinstance(module, nn.BatchNorm2d)
            for own, _ in module.named_parameters()
        }
        half = multiplies_in_bfloat16()
        self._halved = [
            name for name, _ in self.model.named_parameters() if half and name not in norms
        ]

    def fork(self) -> Training:
        """A copy that goes on from here by itself."""
        fork = copy.copy(self)
        # Together, so that the copied optimiser holds the copied weights.
        fork.model, fork._optimizer = copy.deepcopy((self.model, self._optimizer))
        fork._luck = torch.Generator()  # torch 2.1 cannot copy one
        fork._luck.set_state(self._luck.get_state())
        return fork

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "luck": self._luck.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what ``state_dict`` said."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._luck.set_state(state["luck"])

    def learn(
        self,
        examples: Examples,
        rows: torch.Tensor,
        rate: Callable[[float], float],
        *,
        on_step: Callable[[], None] = lambda: None,
    ) -> float:
        """Take one pass over the rows that were drawn, whole batches only.

        Args:
            examples: What is drawn from.
            rows: (draws,) picture rows.
            rate: Learning rate at each share of this pass in [0, 1).
            on_step: Called after each step.

        Returns:
            Mean loss of the last quarter.
        """
        self.model.train()
        steps = len(rows) // self.batch_size
        losses = []
        for step in range(steps):
            batch = rows[step * self.batch_size : (step + 1) * self.batch_size].long()
            mirrored = torch.rand(len(batch), generator=self._luck) < 0.5
            pixels, goals = examples.batch(batch, mirrored)
            for group in self._optimizer.param_groups:
                group["lr"] = rate(step / steps)
            loss = loss_of(self._look(pixels), goals)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimizer.step()
            losses.append(loss.detach())
            on_step()
        return float(torch.stack(losses[-max(1, steps // 4) :]).mean()) if losses else float("nan")

    @torch.no_grad()
    def detect(self, pictures: Pictures, *, batch_size: int = 64) -> Detections:
        """Find objects: boxes in pixels of the image files, at most 200 a picture."""
        self.model.eval()
        found = [
            part
            for first in range(0, len(pictures), batch_size)
            for part in self._find(pictures, range(first, min(first + batch_size, len(pictures))))
        ]
        rows, class_rows, boxes, scores = map(np.concatenate, zip(*found, strict=True))
        return Detections(rows, class_rows, boxes, scores)

    def _look(self, pixels: torch.Tensor) -> Answers:
        parameters = dict(self.model.named_parameters())
        half = {name: parameters[name].bfloat16() for name in self._halved}
        answers: Answers = functional_call(self.model, half, (pixels,))
        return answers

    def _find(self, pictures: Pictures, rows: range) -> Iterator[tuple[np.ndarray, ...]]:
        answers = self._look(pictures.look(torch.arange(rows.start, rows.stop)))
        every = answers.logits.sigmoid().flatten(1)
        scores, cells = every.topk(min(_MOST, every.shape[1]), dim=1)
        num_classes = answers.logits.shape[-1]
        for place, row in enumerate(rows):
            sure = scores[place] >= _LEAST_SCORE
            value, cell = scores[place][sure], cells[place][sure]
            classes = cell % num_classes
            boxes = answers.boxes[place][cell // num_classes].clamp(0, pictures.side)
            kept = batched_nms(boxes, value, classes, _OVERLAP)
            yield (
                np.full(len(kept), row, np.int64),
                classes[kept].numpy(),
                boxes[kept].double().numpy() * np.tile(pictures.scales[row], 2),
                value[kept].double().numpy(),
            )


def judge(
    training: Training, pictures: Pictures, images: ImageSet
) -> tuple[npt.NDArray[np.float64], Detections]:
    """AP of each class, (C,), NaN where the images show none, and what was found."""
    found = training.detect(pictures)
    return average_precision_from_matches(match_detections(images, found)), found


def multiplies_in_bfloat16() -> bool:
    """Whether this CPU has units for it; without them bfloat16 is slower than float32."""
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)

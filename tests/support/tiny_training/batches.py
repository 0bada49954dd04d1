"""Training batches of the tiny CLIP: views, sentences, and which sentence is true of which view."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from hardmine.encoders.clip80 import CLIP80
from hardmine.encoders.preprocess import CLIP_MEAN, CLIP_STD
from hardmine.encoders.templates import TEMPLATES
from hardmine.scenes.captions import Caption, describe, name_prompt
from hardmine.scenes.kinds import NAMES
from tiny_training.recipe import Phase
from tiny_training.scene_pool import ScenePool, truth_table

PROMPTS = CLIP80 + TEMPLATES["short"]


class Batch(NamedTuple):
    """Views with the claims they show, and sentences with the views they are true of.

    Attributes:
        images: (B, 3, side, side) bfloat16, normalised.
        present, absent: (F, B) bool, by claim; both False where the truth is unknown.
        tokens: (T, L) sentences; None in phases without sentences.
        true, false: (T, B) bool, by sentence; both False where the truth is unknown.
    """

    images: torch.Tensor
    present: torch.Tensor
    absent: torch.Tensor
    tokens: torch.Tensor | None
    true: torch.Tensor
    false: torch.Tensor


def make_batches(
    pool: ScenePool, tokenizer: Any, phase: Phase, rng: np.random.Generator
) -> Iterator[Batch]:
    """Draw batches endlessly: a caption for every second view, and one prompt for each class."""
    mean, std = (torch.tensor(part).view(3, 1, 1) * 255 for part in (CLIP_MEAN, CLIP_STD))
    tokens: dict[str, torch.Tensor] = {}
    while True:
        rows = rng.integers(len(pool), size=phase.batch).tolist()
        views = [pool.view(row, phase, rng) for row in rows]
        captions = []
        if phase.sentences:
            captions = [
                describe(view.mentions, view.place, view.context, rng) for view in views[::2]
            ]
            captions += [_class_caption(kind, rng) for kind in NAMES]
        true, false = truth_table(captions, views)
        for caption in captions:
            if caption.text not in tokens:
                tokens[caption.text] = tokenizer([caption.text])[0]
        images = torch.from_numpy(np.stack([view.image for view in views])).permute(0, 3, 1, 2)
        gain = torch.from_numpy(rng.uniform(0.85, 1.15, (len(views), 3, 1, 1))).float()
        yield Batch(
            images.bfloat16().mul_((gain / std).bfloat16()).sub_((mean / std).bfloat16()),
            torch.from_numpy(np.stack([view.present for view in views], 1)),
            torch.from_numpy(np.stack([view.absent for view in views], 1)),
            torch.stack([tokens[caption.text] for caption in captions]) if captions else None,
            torch.from_numpy(true),
            torch.from_numpy(false),
        )


def _class_caption(kind: str, rng: np.random.Generator) -> Caption:
    if rng.random() < 0.5:
        return name_prompt(kind, rng)
    prompt = PROMPTS[int(rng.integers(len(PROMPTS)))]
    return Caption(prompt.format(kind), (("kind", kind),))


def prefetch(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """The first ``count`` batches; a thread prepares the next ones during a training step."""
    ready: queue.Queue[Batch | BaseException] = queue.Queue(4)

    def prepare() -> None:
        try:
            for _ in range(count):
                ready.put(next(batches))
        except BaseException as error:
            ready.put(error)

    threading.Thread(target=prepare, daemon=True).start()
    for _ in range(count):
        batch = ready.get()
        if isinstance(batch, BaseException):
            raise batch
        yield batch

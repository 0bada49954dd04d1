"""Trains the tiny CLIP on generated scenes: ``python -m hardmine.encoders.tiny.train``."""

from __future__ import annotations

import argparse
import copy
import hashlib
import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.encoders.tiny import make_model, recipe
from hardmine.encoders.tiny.batches import PROMPTS, ahead, make_batches
from hardmine.encoders.tiny.scene_pool import CLAIMS, ScenePool
from hardmine.encoders.tiny.tower import HalfTower
from hardmine.encoders.tiny.vocabulary import write_vocabulary
from hardmine.evaluation.ranking import average_precision_at, rank_hits
from hardmine.scenes import NAMES, generate_scene
from hardmine.scenes.captions import vocabulary

_HERE = Path(__file__).parent
_log = logging.getLogger(__name__)


def contrastive_loss(scores: torch.Tensor, true: torch.Tensor, false: torch.Tensor) -> torch.Tensor:
    """CLIP's loss where a sentence may be true of several pictures, or open.

    Each true pair must stand out from all false pairs of its sentence, and of its picture. With
    one true pair a row and a column, and all others false, it is CLIP's own.

    Args:
        scores: (T, B) scaled similarities.
        true: (T, B) bool.
        false: (T, B) bool; pairs that are neither are left out.
    """
    shut = scores.masked_fill(~false, -torch.inf)
    losses = []
    for axis in (1, 0):
        others = shut.logsumexp(axis, keepdim=True).clamp(min=-1e4)
        each = F.softplus(others - scores) * true
        counts = true.sum(axis).clamp(min=1)
        losses.append((each.sum(axis) / counts)[true.any(axis)].mean())
    return (losses[0] + losses[1]) / 2


def train(
    model: open_clip.CLIP,
    tokenizer: Any,
    pool: ScenePool,
    cycle: recipe.Cycle,
    *,
    free: nn.Parameter,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_checkpoint: Callable[[int, open_clip.CLIP], None] = lambda step, average: None,
    checkpoint_every: int = 500,
) -> open_clip.CLIP:
    """Train a model in place; returns the running average of its weights, which is better.

    Args:
        model: With random weights, in training mode.
        tokenizer: Of its texts.
        pool: Scenes to learn from.
        cycle: What to show it, for how long, at which learning rate.
        free: (F, D) a free vector for each claim, trained with the model: the image tower learns
            what to tell apart without waiting for the text tower to tell its words apart.
        seed: Of views and sentences.
        on_step: Called with the number of steps done and the loss.
        on_checkpoint: Called now and then, and last, with the steps done and the average.
        checkpoint_every: Steps between two checkpoints.
    """
    tower, average = HalfTower(model.visual), copy.deepcopy(model)
    optimizer = _make_optimizer(model, free)
    rng = np.random.default_rng(seed)
    total, step = sum(phase.steps for phase in cycle.phases), 0
    for phase in cycle.phases:
        for batch in ahead(make_batches(pool, tokenizer, phase, rng), phase.steps):
            for group in optimizer.param_groups:
                group["lr"] = _rate(step, cycle)
            images = F.normalize(tower(batch.images), dim=-1)
            scale = model.logit_scale.exp()
            scores = scale * F.normalize(free, dim=-1) @ images.T
            loss = contrastive_loss(scores, batch.present, batch.absent)
            if batch.tokens is not None:
                scores = scale * model.encode_text(batch.tokens, normalize=True) @ images.T
                loss = loss + contrastive_loss(scores, batch.true, batch.false)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            tower.hand_over_gradients()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            tower.take_weights()
            _update_average(average, model, min(recipe.AVERAGING, (step + 1) / (step + 20)))
            step += 1
            on_step(step, loss.item())
            if step % checkpoint_every == 0 or step == total:
                on_checkpoint(step, average)
    return average


def _make_optimizer(model: nn.Module, free: nn.Parameter) -> torch.optim.Optimizer:
    """AdamW that shrinks matrices alone, not gains, biases, positions and embeddings."""
    matrices: list[nn.Parameter] = []
    others = [free]
    for name, parameter in model.named_parameters():
        plain = parameter.ndim < 2 or "embedding" in name
        (others if plain else matrices).append(parameter)
    groups = [
        {"params": others, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": recipe.DECAY},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _rate(step: int, cycle: recipe.Cycle) -> float:
    """Warm up, then fall along a cosine."""
    warm = (step + 1) / recipe.WARMUP
    return cycle.peak * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / cycle.horizon))


def free_vectors(model: open_clip.CLIP) -> nn.Parameter:
    """(F, D) random vectors, one a claim."""
    return nn.Parameter(torch.randn(len(CLAIMS), model.visual.output_dim) * 0.1)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    for own, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if own.is_floating_point():
            own.lerp_(theirs, 1 - keep)
        else:
            own.copy_(theirs)


def validate(model: open_clip.CLIP, tokenizer: Any, *, count: int = 300) -> dict[str, float]:
    """mAP@50 by class name on scenes of another seed, by whole images and by best patch."""
    encoder = OpenClipEncoder(model, tokenizer)
    texts = encoder.encode_texts([f"a photo of a {name}." for name in NAMES])
    holds = np.zeros((len(NAMES), count), bool)
    whole, dense = [], []
    for index in range(count):
        scene = generate_scene(recipe.VALIDATION_SEED, index, tail=8.0)
        holds[scene.class_rows, index] = True
        features = encoder.encode_images(encoder.preprocess(scene.picture)[None])
        whole.append(features.whole @ texts.T)
        dense.append((features.patches.flatten(1, 2) @ texts.T).amax(1))
    return {
        name: float(np.nanmean(average_precision_at(rank_hits(scores, holds, None), 50)))
        for name, scores in (
            ("whole", torch.cat(whole).T.numpy()),
            ("dense", torch.cat(dense).T.numpy()),
        )
    }


def save_weights(model: nn.Module, path: Path) -> None:
    """Save weights as float16 safetensors."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, path)


def write_checksums(folder: Path) -> None:
    """Record what belongs to the trained model, so that an altered file is noticed."""
    names = ("config.json", "vocabulary.txt.gz", "weights.safetensors")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")


class _Log:
    """Writes the loss every fifty steps and the validation at checkpoints."""

    def __init__(self, total: int, tokenizer: Any, checkpoint: Path) -> None:
        self._total, self._tokenizer, self._checkpoint = total, tokenizer, checkpoint
        self._started = time.monotonic()
        self._recent: list[float] = []

    def step(self, step: int, loss: float) -> None:
        self._recent.append(loss)
        if step % 50 == 0:
            spent = time.monotonic() - self._started
            mean = np.mean(self._recent[-50:])
            _log.info("step %d/%d, loss %.3f, %.0f s", step, self._total, mean, spent)

    def checkpoint(self, step: int, average: open_clip.CLIP) -> None:
        save_weights(average, self._checkpoint)
        found = validate(average, self._tokenizer)
        _log.info("step %d, mAP@50 whole %.3f, dense %.3f", step, found["whole"], found["dense"])


def main() -> None:
    """Make the vocabulary, the pool and the model, train, and write the package's files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, default=Path("runs/tiny"), help="pool, checkpoints")
    parser.add_argument("--out", type=Path, default=_HERE, help="where the model's files go")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the recipe's steps")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(recipe.SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    vocabulary_path, config_path = args.out / "vocabulary.txt.gz", args.out / "config.json"
    config = json.loads((_HERE / "config.json").read_text())
    config["text_cfg"]["vocab_size"] = write_vocabulary((*vocabulary(), *PROMPTS), vocabulary_path)
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    model, tokenizer = make_model(config_path, vocabulary_path)
    free = free_vectors(model)
    pool = ScenePool(args.work / "pool", seed=recipe.POOL_SEED, count=recipe.POOL_SIZE)
    average = model
    for number, cycle in enumerate(recipe.CYCLES):
        phases = [phase._replace(steps=round(phase.steps * args.steps)) for phase in cycle.phases]
        cycle = cycle._replace(phases=tuple(phases), horizon=round(cycle.horizon * args.steps))
        log = _Log(sum(phase.steps for phase in phases), tokenizer, args.work / "last.safetensors")
        average = train(
            *(model, tokenizer, pool, cycle),
            free=free,
            seed=recipe.SEED + number,
            on_step=log.step,
            on_checkpoint=log.checkpoint,
        )
    save_weights(average, args.out / "weights.safetensors")
    write_checksums(args.out)


if __name__ == "__main__":
    main()

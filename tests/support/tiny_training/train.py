"""The training loop of the tiny CLIP and its loss."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import open_clip
import torch
import torch.nn.functional as F
from torch import nn

from tiny_training import recipe
from tiny_training.batches import make_batches, prefetch
from tiny_training.scene_pool import CLAIMS, ScenePool
from tiny_training.tower import HalfTower


def contrastive_loss(scores: torch.Tensor, true: torch.Tensor, false: torch.Tensor) -> torch.Tensor:
    """CLIP's loss, generalised to sentences that are true of several images, or of unknown truth.

    A true pair is contrasted with all false pairs of its sentence, and with all false pairs of
    its image. With one true pair in each row and column and all others false, this is CLIP's loss.

    Args:
        scores: (T, B) scaled similarities.
        true: (T, B) bool.
        false: (T, B) bool; pairs that are neither true nor false are ignored.
    """
    false_scores = scores.masked_fill(~false, -torch.inf)
    losses = []
    for axis in (1, 0):
        others = false_scores.logsumexp(axis, keepdim=True).clamp(min=-1e4)
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
    claim_vectors: nn.Parameter,
    seed: int,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    on_checkpoint: Callable[[int, open_clip.CLIP], None] = lambda step, average: None,
    checkpoint_every: int = 500,
) -> open_clip.CLIP:
    """Train a model in place; returns the running average of its weights, which scores better.

    Args:
        model: With random weights, in training mode.
        tokenizer: The model's tokenizer.
        pool: Scenes to train on.
        cycle: Sizes and kinds of views, numbers of steps, and the learning rate.
        claim_vectors: (F, D) one vector for each claim, trained with the model. With them the
            image tower learns before the text tower can distinguish words.
        seed: Seed of views and sentences.
        on_step: Called with the number of steps done and the loss.
        on_checkpoint: Called with the number of steps done and the average, every
            ``checkpoint_every`` steps and after the last.
        checkpoint_every: Steps between two checkpoints.
    """
    tower, average = HalfTower(model.visual), copy.deepcopy(model)
    optimizer = _make_optimizer(model, claim_vectors)
    rng = np.random.default_rng(seed)
    total, step = sum(phase.steps for phase in cycle.phases), 0
    for phase in cycle.phases:
        for batch in prefetch(make_batches(pool, tokenizer, phase, rng), phase.steps):
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, cycle)
            images = F.normalize(tower(batch.images), dim=-1)
            scale = model.logit_scale.exp()
            scores = scale * F.normalize(claim_vectors, dim=-1) @ images.T
            loss = contrastive_loss(scores, batch.present, batch.absent)
            if batch.tokens is not None:
                scores = scale * model.encode_text(batch.tokens, normalize=True) @ images.T
                loss = loss + contrastive_loss(scores, batch.true, batch.false)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            tower.copy_gradients()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            with torch.no_grad():
                model.logit_scale.clamp_(max=math.log(100))
            tower.sync_weights()
            _update_average(average, model, min(recipe.AVERAGING, (step + 1) / (step + 20)))
            step += 1
            on_step(step, loss.item())
            if step % checkpoint_every == 0 or step == total:
                on_checkpoint(step, average)
    return average


def _make_optimizer(model: nn.Module, claim_vectors: nn.Parameter) -> torch.optim.Optimizer:
    """AdamW with weight decay on matrices only, not on gains, biases, positions or embeddings."""
    matrices: list[nn.Parameter] = []
    others = [claim_vectors]
    for name, parameter in model.named_parameters():
        no_decay = parameter.ndim < 2 or "embedding" in name
        (others if no_decay else matrices).append(parameter)
    groups = [
        {"params": others, "weight_decay": 0.0},
        {"params": matrices, "weight_decay": recipe.DECAY},
    ]
    return torch.optim.AdamW(groups, betas=(0.9, 0.98))


def _learning_rate(step: int, cycle: recipe.Cycle) -> float:
    """Linear warm-up, then a cosine decay."""
    warm = (step + 1) / recipe.WARMUP
    return cycle.peak * min(warm, 0.5 + 0.5 * math.cos(math.pi * step / cycle.horizon))


def random_claim_vectors(model: open_clip.CLIP) -> nn.Parameter:
    """(F, D) random vectors, one for each claim."""
    return nn.Parameter(torch.randn(len(CLAIMS), model.visual.output_dim) * 0.1)


@torch.no_grad()
def _update_average(average: nn.Module, model: nn.Module, keep: float) -> None:
    for mean, new in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(new, 1 - keep)
        else:
            mean.copy_(new)

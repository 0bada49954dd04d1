"""Train the ``tiny`` encoder: ``PYTHONPATH=tests/support python -m tiny_training``."""

from __future__ import annotations

import argparse
import json
import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch

from hardmine.encoders import tiny
from hardmine.scenes.captions import vocabulary
from tiny_training import recipe
from tiny_training.batches import PROMPTS
from tiny_training.save import save_weights, write_checksums
from tiny_training.scene_pool import ScenePool
from tiny_training.train import random_claim_vectors, train
from tiny_training.validate import validate
from tiny_training.vocabulary import write_vocabulary

_ENCODER = Path(tiny.__file__).parent
_log = logging.getLogger("tiny_training")


class _Log:
    """Logs the loss every 50 steps; validates and saves at checkpoints."""

    def __init__(self, num_steps: int, tokenizer: Any, checkpoint: Path) -> None:
        self._num_steps, self._tokenizer, self._checkpoint = num_steps, tokenizer, checkpoint
        self._started = time.monotonic()
        self._losses: list[float] = []

    def step(self, step: int, loss: float) -> None:
        self._losses.append(loss)
        if step % 50 == 0:
            seconds = time.monotonic() - self._started
            mean = np.mean(self._losses[-50:])
            _log.info("step %d/%d, loss %.3f, %.0f s", step, self._num_steps, mean, seconds)

    def checkpoint(self, step: int, average: open_clip.CLIP) -> None:
        save_weights(average, self._checkpoint)
        scores = validate(average, self._tokenizer)
        _log.info("step %d, mAP@50 whole %.3f, dense %.3f", step, scores["whole"], scores["dense"])


def main() -> None:
    """Make the vocabulary, the scenes and the model; train; write the encoder's files."""
    parser = argparse.ArgumentParser(prog="python -m tiny_training", description=__doc__)
    parser.add_argument(
        "--work", type=Path, default=Path("runs/tiny"), help="folder for scenes and checkpoints"
    )
    parser.add_argument("--out", type=Path, default=_ENCODER, help="folder for the encoder's files")
    parser.add_argument("--steps", type=float, default=1.0, help="share of the recipe's steps")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.manual_seed(recipe.SEED)
    args.out.mkdir(parents=True, exist_ok=True)
    vocabulary_path, config_path = args.out / "vocabulary.txt.gz", args.out / "config.json"
    config = json.loads((_ENCODER / "config.json").read_text())
    config["text_cfg"]["vocab_size"] = write_vocabulary((*vocabulary(), *PROMPTS), vocabulary_path)
    config_path.write_text(json.dumps(config, indent=2) + "\n")
    model, tokenizer = tiny.make_model(config_path, vocabulary_path)
    claim_vectors = random_claim_vectors(model)
    pool = ScenePool(args.work / "pool", seed=recipe.POOL_SEED, count=recipe.POOL_SIZE)
    average = model
    for number, cycle in enumerate(recipe.CYCLES):
        phases = [phase._replace(steps=round(phase.steps * args.steps)) for phase in cycle.phases]
        cycle = cycle._replace(phases=tuple(phases), horizon=round(cycle.horizon * args.steps))
        num_steps = sum(phase.steps for phase in phases)
        log = _Log(num_steps, tokenizer, args.work / "last.safetensors")
        average = train(
            *(model, tokenizer, pool, cycle),
            claim_vectors=claim_vectors,
            seed=recipe.SEED + number,
            on_step=log.step,
            on_checkpoint=log.checkpoint,
        )
    save_weights(average, args.out / "weights.safetensors")
    write_checksums(args.out)


if __name__ == "__main__":
    main()

"""Retrieval quality of the tiny CLIP on scenes that training does not show."""

from __future__ import annotations

from typing import Any

import numpy as np
import open_clip
import torch
from hardmine.evaluation.metrics import average_precision_at, rank_hits

from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.scenes import NAMES, generate_scene
from tiny_training import recipe


def validate(model: open_clip.CLIP, tokenizer: Any, *, count: int = 300) -> dict[str, float]:
    """mAP@50 by class name, with whole-image vectors and with each image's best patch."""
    encoder = OpenClipEncoder(model, tokenizer)
    texts = encoder.encode_texts([f"a photo of a {name}." for name in NAMES])
    relevant = np.zeros((len(NAMES), count), bool)
    whole, dense = [], []
    for index in range(count):
        scene = generate_scene(recipe.VALIDATION_SEED, index, tail=8.0)
        relevant[scene.class_rows, index] = True
        features = encoder.encode_images(encoder.preprocess(scene.picture)[None])
        whole.append(features.whole @ texts.T)
        dense.append((features.patches.flatten(1, 2) @ texts.T).amax(1))
    return {
        name: float(np.nanmean(average_precision_at(rank_hits(scores, relevant, None), 50)))
        for name, scores in (
            ("whole", torch.cat(whole).T.numpy()),
            ("dense", torch.cat(dense).T.numpy()),
        )
    }

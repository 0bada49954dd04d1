"""Cosines between all patches of an image, the same whatever batch the image is in."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def gram(patches: Tensor) -> Tensor:
    """Cosine similarity of every pair of patches, image by image.

    One product an image, never one for the batch: a batched product may sum in another order
    for another batch size, and a region must not depend on the company its image is in.

    Args:
        patches: (B, P, D) float32 unit vectors; a zero vector has cosine 0 with all.

    Returns:
        (B, P, P) float32.
    """
    batch, count, _ = patches.shape
    cosines = patches.new_empty(batch, count, count)
    if patches.device.type == "cpu":
        vectors, target = patches.contiguous().numpy(), cosines.numpy()
        for row in range(batch):
            # NumPy sees X @ X.T and computes one triangle: half the work of torch.mm.
            np.matmul(vectors[row], vectors[row].T, out=target[row])
    else:
        for row in range(batch):
            torch.mm(patches[row], patches[row].T, out=cosines[row])
    return cosines

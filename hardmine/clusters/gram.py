"""Cosines between all patches of an image, the same whatever batch the image is in."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from torch import Tensor


def gram(patches: Tensor, *, coarse: bool = False) -> Tensor:
    """Cosine similarity of every pair of patches, image by image.

    One product an image, never one for the batch: a batched product may sum in another order
    for another batch size, and a region must not depend on the company its image is in.

    Args:
        patches: (B, P, D) float32 unit vectors; a zero vector has cosine 0 with all.
        coarse: Round patches and cosines to bfloat16, which k-means' means even out: twice as
            fast on processors that multiply in it, and the same values on those that do not.

    Returns:
        (B, P, P) float32.
    """
    batch, count, dim = patches.shape
    dtype = torch.bfloat16 if coarse else torch.float32
    narrow = patches.device.type != "cpu" or (coarse and _multiplies_in_bfloat16())
    cosines = patches.new_empty(batch, count, count, dtype=dtype if narrow else torch.float32)
    vectors = patches.new_empty(count, dim, dtype=dtype)
    for row in range(batch):
        vectors.copy_(patches[row])
        if narrow:
            torch.mm(vectors, vectors.T, out=cosines[row])
        else:
            # NumPy sees X @ X.T and computes one triangle: half the work of torch.mm.
            factor = vectors.float().numpy()
            np.matmul(factor, factor.T, out=cosines[row].numpy())
    return cosines.to(dtype).float()


@cache
def _multiplies_in_bfloat16() -> bool:
    """Whether this processor has units for it; elsewhere it is emulated, slower than float32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())

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
    batch, count, _ = patches.shape
    dtype = torch.bfloat16 if coarse else torch.float32
    factors = patches.to(dtype).contiguous()
    on_cpu = patches.device.type == "cpu"
    if on_cpu and not (coarse and _multiplies_in_bfloat16()):
        cosines = patches.new_empty(batch, count, count)
        vectors, target = factors.float().numpy(), cosines.numpy()
        for row in range(batch):
            # NumPy sees X @ X.T and computes one triangle: half the work of torch.mm.
            np.matmul(vectors[row], vectors[row].T, out=target[row])
        return cosines.to(dtype).float()
    products = factors.new_empty(batch, count, count)
    for row in range(batch):
        torch.mm(factors[row], factors[row].T, out=products[row])
    return products.float()


@cache
def _multiplies_in_bfloat16() -> bool:
    """Whether this processor has units for it; elsewhere it is emulated, slower than float32."""
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(probe and probe())

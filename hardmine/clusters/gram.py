"""Cosines between all patches of an image, the same whatever batch the image is in."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor

from hardmine.processor import has_onednn


def gram(patches: Tensor) -> Tensor:
    """Cosine similarity of every pair of patches, image by image.

    One product an image, never one for the batch: a batched product may sum in another order
    for another batch size, and a region must not depend on the company its image is in.

    Args:
        patches: (B, P, D) float32 unit vectors; a zero vector has cosine 0 with all.

    Returns:
        (B, P, P) float32, symmetric; where a patch is not finite, every row of its image shows it.
    """
    batch, count, _ = patches.shape
    cosines = patches.new_empty(batch, count, count)
    multiply = _multiplier(patches.device)
    for vectors, out in zip(patches.unbind(), cosines.unbind(), strict=True):
        multiply(vectors, out)
    return cosines


@torch.inference_mode()
def cosine_grid(patches: Tensor) -> Tensor:
    """Cosines as whole numbers, right to a few thousandths, in half the time of ``gram``.

    The patches are rounded to 8 bits, which the products of many processors are fastest in.
    Every sum on the way, and of a row of the result, is exact in float32 too: neither its order
    nor the kind of processor changes a bit.

    Args:
        patches: As in ``gram``.

    Returns:
        (B, P, P) float32 multiples of one, ``grid_unit(P)`` for cosine 1; NaN throughout for an
        image with a patch that is not finite.
    """
    batch, count, dim = patches.shape
    # A signed byte holds 127, and D products of numbers so small sum to less than 2**24.
    limit = min(127, int(4095 / math.sqrt(dim)))
    unit_power = math.frexp(grid_unit(count))[1] - 1
    in_bytes = patches.device.type == "cpu" and _multiplies_bytes()
    multiply = _multiplier(patches.device)
    # At this size a float's last bit counts whole numbers: what is added to it is rounded.
    shift = patches.new_tensor(1.5 * 2**23)
    grid = patches.new_empty(batch, count, count)
    numbers = patches.new_empty(count, dim)
    narrow = torch.empty_like(numbers, dtype=torch.int8)
    product = torch.empty_like(grid[0], dtype=torch.int32)
    for vectors, out in zip(patches.unbind(), grid.unbind(), strict=True):
        peak = max(float(vectors.amax()), -float(vectors.amin()))
        if not math.isfinite(peak):
            out.fill_(math.nan)
            continue
        # A power of two: the product with it is exact, so processors that multiply and add in
        # one instruction and those that do not give the same.
        power = math.frexp(limit / (peak or 1.0))[1] - 1
        torch.add(shift, vectors, alpha=2.0**power, out=numbers)
        if in_bytes:
            narrow.copy_(numbers.view(torch.int32))  # the lowest byte
            out.copy_(torch._int_mm(narrow, narrow.T, out=product))
        else:
            multiply(numbers.sub_(shift), out)
        out.mul_(2.0 ** (unit_power - 2 * power)).round_()
    return grid


def grid_unit(count: int) -> float:
    """What stands for cosine 1 in ``cosine_grid``: ``count`` of them sum to at most 2**23."""
    return float(2 ** (23 - (count - 1).bit_length()))


def _multiplier(device: torch.device) -> Callable[[Tensor, Tensor], object]:
    """The fastest way to put (P, D) times its transpose into (P, P), in float32 throughout."""
    if device.type != "cpu":
        return lambda vectors, out: torch.mm(vectors, vectors.T, out=out)
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    rounds = getattr(matmul, "fp32_precision", "none") not in ("none", "ieee")
    return _multiply_with_onednn if has_onednn() and not rounds else _multiply_with_numpy


def _multiply_with_onednn(vectors: Tensor, out: Tensor) -> None:
    """Fills the registers of any x86 processor, where MKL and NumPy's BLAS fill half of AMD's."""
    half = len(vectors) // 2
    linear = torch.ops.mkldnn._linear_pointwise
    out[:half] = linear(vectors[:half], vectors, None, "none", [], "")
    out[half:, half:] = linear(vectors[half:], vectors[half:], None, "none", [], "")
    out[half:, :half] = out[:half, half:].T


def _multiply_with_numpy(vectors: Tensor, out: Tensor) -> None:
    """Sees X @ X.T and computes one triangle."""
    factor = vectors.numpy()
    np.matmul(factor, factor.T, out=out.numpy())


@cache
def _multiplies_bytes() -> bool:
    """Whether this processor has units for products of bytes that oneDNN uses."""
    probe = getattr(torch.cpu, "_is_vnni_supported", None)
    return has_onednn() and bool(probe and probe())

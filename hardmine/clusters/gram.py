"""Cosines between all patches of an image, independent of the batch."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from hardmine.processor import has_onednn, mkl_is_faster, multiplies_bytes

# A float32 of this size has a last bit of 1, so adding to it rounds to whole numbers.
_SHIFT = 1.5 * 2**23
# Of fewer patches oneDNN computes the whole product faster than three quarters in two calls.
_HALVED_FROM = 300


def gram(patches: Tensor) -> Tensor:
    """Cosine similarity of every pair of patches of an image.

    One matrix product for each image: a batched product may sum in another order for another batch
    size, and an image's regions must not depend on its batch.

    Args:
        patches: (B, P, D) float32 unit vectors; a zero vector has cosine 0 with every other.

    Returns:
        (B, P, P) float32, symmetric. If a patch is not finite, every row of its image has a value
        that is not finite.
    """
    batch, count, _ = patches.shape
    cosines = patches.new_empty(batch, count, count)
    multiply = _multiplier(patches.device)
    for vectors, out in zip(patches.unbind(), cosines.unbind(), strict=True):
        multiply(vectors, out)
    return cosines


@torch.inference_mode()
def cosine_grid(patches: Tensor) -> Tensor:
    """Cosines as whole numbers, accurate to a few thousandths, in half the time of ``gram``.

    Patches are rounded to 8 bits, in which many CPUs multiply fastest. All sums, including the sum
    of a row of the result, are exact in float32, so the result is the same bits for any order of
    summation and any CPU.

    Args:
        patches: As in ``gram``.

    Returns:
        (B, P, P) float32 whole numbers, ``grid_unit(P)`` for cosine 1; all NaN for an image with a
        patch that is not finite.
    """
    batch, count, dim = patches.shape
    # At most 127 for a signed byte, and such that D products sum to less than 2**24.
    limit = min(127, int(4095 / math.sqrt(dim)))
    if patches.device.type != "cpu":
        return _grid_of_all(patches, limit)
    unit_power = math.frexp(grid_unit(count))[1] - 1
    # torch 2.14 multiplies by the transpose of a single column wrongly.
    use_int8 = patches.device.type == "cpu" and dim > 1 and multiplies_bytes()
    multiply = _multiplier(patches.device)
    shift = patches.new_tensor(_SHIFT)
    grid = patches.new_empty(batch, count, count)
    rounded = patches.new_empty(count, dim)
    bits = rounded.view(torch.int32)  # the number that was added to the shift, plus ``zero``
    zero = int(shift.view(torch.int32))
    int8 = torch.empty_like(rounded, dtype=torch.int8)
    product = torch.empty_like(grid[0], dtype=torch.int32)
    power = 9  # right for a peak between 0.125 and 0.245, common for an image's unit vectors
    for vectors, out in zip(patches.unbind(), grid.unbind(), strict=True):
        # Multiplying by a power of two is exact, so CPUs with and without fused multiply-add give
        # the same result. Reading an image takes longest: try the power of the one before it.
        torch.add(shift, vectors, alpha=2.0**power, out=rounded)
        lowest, highest = bits.aminmax()
        if not (limit + 1) / 2 < max(int(highest) - zero, zero - int(lowest)) < limit:
            lowest, highest = vectors.aminmax()
            peak = max(float(highest), -float(lowest))
            if not math.isfinite(peak):
                out.fill_(math.nan)
                continue
            power = math.frexp(limit / (peak or 1.0))[1] - 1
            torch.add(shift, vectors, alpha=2.0**power, out=rounded)
        if use_int8:
            int8.copy_(bits)  # the lowest byte
            out.copy_(torch._int_mm(int8, int8.T, out=product))
        else:
            multiply(rounded.sub_(shift), out)
        out.mul_(2.0 ** (unit_power - 2 * power)).round_()
    return grid


def _grid_of_all(patches: Tensor, limit: int) -> Tensor:
    """``cosine_grid`` of all images at once, for a GPU: the host waits for nothing.

    Whole numbers below 128 and their sums are exact in TF32 too.
    """
    lowest, highest = patches.flatten(1).aminmax(dim=1)
    peaks = torch.maximum(highest, -lowest)
    finite = peaks.isfinite()
    ratios = limit / torch.where(finite & (peaks > 0), peaks, 1.0).double()
    # The largest power of two up to the ratio. This division is exact.
    scales = (ratios / torch.frexp(ratios).mantissa / 2)[:, None, None]
    rounded = (patches * scales.float()).add_(_SHIFT).sub_(_SHIFT)
    # Autocast leaves a product alone that is written to given memory.
    grid = patches.new_empty(len(patches), patches.shape[1], patches.shape[1])
    torch.bmm(rounded, rounded.mT, out=grid)
    grid.mul_((grid_unit(patches.shape[1]) / scales.square()).float()).round_()
    return grid.masked_fill_(~finite[:, None, None], torch.nan)


def grid_unit(count: int) -> float:
    """The value of cosine 1 in ``cosine_grid``; the sum of ``count`` of them is at most 2**23."""
    return float(2 ** (23 - (count - 1).bit_length()))


def _multiplier(device: torch.device) -> Callable[[Tensor, Tensor], object]:
    """The fastest float32 product of (P, D) with its transpose into (P, P) on this device."""
    if device.type != "cpu":
        return lambda vectors, out: torch.mm(vectors, vectors.T, out=out)
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    reduced = getattr(matmul, "fp32_precision", "none") not in ("none", "ieee")
    if not has_onednn() or reduced:
        return _multiply_with_numpy
    if mkl_is_faster():
        return lambda vectors, out: _multiply_halves(_product_by_mkl, vectors, out)
    return _multiply_with_onednn


def _multiply_with_onednn(vectors: Tensor, out: Tensor) -> None:
    """Both ways give the same bits: oneDNN sums each product in the same order."""
    if len(vectors) < _HALVED_FROM:
        out.copy_(_product_by_onednn(vectors, vectors))
    else:
        _multiply_halves(_product_by_onednn, vectors, out)


def _multiply_halves(
    multiply: Callable[[Tensor, Tensor], Tensor], vectors: Tensor, out: Tensor
) -> None:
    """Compute the product without one quarter, which is that of another transposed."""
    half = len(vectors) // 2
    out[:half] = multiply(vectors[:half], vectors)
    out[half:, half:] = multiply(vectors[half:], vectors[half:])
    out[half:, :half] = out[:half, half:].T


def _product_by_onednn(rows: Tensor, columns: Tensor) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, columns, None, "none", [], "")
    return product


def _product_by_mkl(rows: Tensor, columns: Tensor) -> Tensor:
    # MKL may sum in another order where vectors are not aligned, as those of some images are.
    rows, columns = (x.clone() if x.data_ptr() % 64 else x for x in (rows, columns))
    return torch.mm(rows, columns.T)


def _multiply_with_numpy(vectors: Tensor, out: Tensor) -> None:
    """NumPy recognises X @ X.T and computes only one triangle."""
    factor = vectors.numpy()
    np.matmul(factor, factor.T, out=out.numpy())

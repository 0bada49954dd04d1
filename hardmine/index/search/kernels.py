"""Steps of a search that torch does not do as fast as the machine can."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.threads import best_seconds

# Both half types have a sign, an exponent and a fraction, of 5 + 10 and 8 + 7 bits: moved three
# places to the right, and the copies of the sign cleared, a float16 reads as the bfloat16 that is
# 2^112 times smaller.
LIFT = 2.0**112
_KEEP = 0x8FFF - 0x10000
# What falls out makes a number smaller by 0 to 7 of at least 1031 parts. Made larger again by half
# of that, it is off as much to either side.
MIDDLE = 2 / (2 - 7 / 1031)
# The processor may take smaller ones, which have no leading 1, for zero.
SMALLEST = 2.0**-14


def shift_to_bfloat16(halves: torch.Tensor, out: torch.Tensor) -> None:
    """Write float16 numbers as bfloat16: ``LIFT`` times smaller, and cut off, not rounded.

    Several times as fast as converting them. A number of at least ``SMALLEST`` times ``MIDDLE`` is
    off by at most ``MIDDLE - 1`` of itself.
    """
    bits = out.view(torch.int16)
    torch.bitwise_right_shift(halves.view(torch.int16), 3, out=bits)
    bits.bitwise_and_(_KEEP)


def largest(values: torch.Tensor) -> torch.Tensor:
    """Maximum over the middle dimension, (n, m, C) to (n, C), by halves that may overlap.

    torch's amax takes twice as long: it does not go through C by vector instructions.
    """
    while values.shape[1] > 1:
        half = (values.shape[1] + 1) // 2
        values = torch.maximum(values[:, :half], values[:, -half:])
    return values[:, 0]


def bits_of(scores: torch.Tensor) -> npt.NDArray[np.signedinteger[Any]]:
    """See scores as whole numbers: NumPy looks up faster than torch, but knows no bfloat16."""
    bits: npt.NDArray[np.signedinteger[Any]]
    bits = scores.view(torch.int16 if scores.element_size() == 2 else torch.int32).numpy()
    return bits


def floats_of(
    bits: npt.NDArray[np.signedinteger[Any]], dtype: torch.dtype
) -> npt.NDArray[np.float32]:
    """Turn back what ``bits_of`` made of scores of that type."""
    return np.asarray(torch.from_numpy(bits).view(dtype).float().numpy())


def reaching(scores: torch.Tensor, least: npt.NDArray[np.float32]) -> npt.NDArray[np.intp]:
    """Find the scores that reach their column's least, and perhaps some just below.

    Args:
        scores: (r, C) of any float type.
        least: (C,) all above 0.

    Returns:
        Their positions in the flattened scores.
    """
    if scores.dtype == torch.float32:
        return np.flatnonzero(scores.numpy() >= least)
    wide = torch.from_numpy(least)
    narrow = wide.to(scores.dtype)
    # Positive numbers are in the order of their bits, negative ones have the sign of theirs.
    bits = bits_of(narrow) - (narrow.float() > wide).numpy()
    return np.flatnonzero(bits_of(scores) >= bits.astype(np.int16))


FloatProduct = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@functools.lru_cache(maxsize=64)
def fastest_float32_product(dim: int) -> FloatProduct:
    """Choose how to multiply (r, D) by (C, D) to (r, C) in float32 on the CPU.

    torch.mm asks the BLAS it was built with, which for some processors is half as fast as what
    torch.compile calls instead.
    """
    ways: list[FloatProduct] = [_by_blas]
    if torch.backends.mkldnn.is_available() and hasattr(  # type: ignore[no-untyped-call]
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        ways.append(_by_onednn)
    rows, queries = torch.full((2048, dim), dim**-0.5), torch.full((64, dim), dim**-0.5)
    return min(ways, key=lambda way: best_seconds(lambda: way(rows, queries)))


def _by_blas(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    return torch.mm(rows, queries.T)


def _by_onednn(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, queries, None, "none", [], "")
    return product

"""Small tensor operations that a search needs faster than torch's own."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.processor import has_onednn

# float16 has 1 sign bit, 5 exponent bits and 10 fraction bits; bfloat16 has 1, 8 and 7. Shift a
# float16 right by three bits and clear the copies of its sign bit: read as bfloat16, the result is
# the number times 2^-112, without the lowest three bits of its fraction.
SHIFT_SCALE = 2.0**112
_SIGN_AND_REST = np.int16(0x8FFF - 0x10000)
# The lost bits make a number smaller by 0 to 7 parts in at least 1031. This factor makes it larger
# by half of that, so that the error is the same to both sides.
SHIFT_CENTER = 2 / (2 - 7 / 1031)
# Smaller float16 numbers are subnormal, and the CPU may treat them as zero.
SMALLEST_NORMAL = 2.0**-14
# Columns from which torch's own maximum over a middle dimension is faster than that of halves.
_WIDE = 256
# Rows shifted at a time: 512 x 512 are 0.5 MB, still in the core's cache when they are masked.
_SHIFTED_ROWS = 512


def shift_to_bfloat16(halves: torch.Tensor, out: torch.Tensor) -> None:
    """Write float16 numbers as bfloat16, ``SHIFT_SCALE`` times smaller and truncated.

    Several times as fast as a conversion. A number of at least ``SMALLEST_NORMAL``, multiplied by
    ``SHIFT_CENTER``, has a relative error of at most ``SHIFT_CENTER - 1``.
    """
    # In the cache NumPy shifts at 25 GB/s where torch does at 19.
    bits, stored = out.view(torch.int16).numpy(), halves.view(torch.int16).numpy()
    for start in range(0, len(bits), _SHIFTED_ROWS):
        part = bits[start : start + _SHIFTED_ROWS]
        np.right_shift(stored[start : start + _SHIFTED_ROWS], np.int16(3), out=part)
        np.bitwise_and(part, _SIGN_AND_REST, out=part)


def max_over_middle(values: torch.Tensor) -> torch.Tensor:
    """Maximum over the middle dimension: (n, m, C) to (n, C).

    Compares halves that may overlap where C is small: torch's ``amax`` then takes up to four times
    as long, and else half as long.
    """
    if values.shape[2] >= _WIDE:
        return values.amax(1)
    while values.shape[1] > 1:
        half = (values.shape[1] + 1) // 2
        values = torch.maximum(values[:, :half], values[:, -half:])
    return values[:, 0]


def bits_of(scores: torch.Tensor) -> npt.NDArray[np.signedinteger[Any]]:
    """View scores as integers of their bits, since NumPy indexes faster but lacks bfloat16."""
    bits: npt.NDArray[np.signedinteger[Any]]
    bits = scores.view(torch.int16 if scores.element_size() == 2 else torch.int32).numpy()
    return bits


def floats_of(
    bits: npt.NDArray[np.signedinteger[Any]], dtype: torch.dtype
) -> npt.NDArray[np.float32]:
    """Turn the result of ``bits_of`` for scores of a dtype into float32."""
    return np.asarray(torch.from_numpy(bits).view(dtype).float().numpy())


def positions_at_least(
    scores: torch.Tensor, thresholds: npt.NDArray[np.float32]
) -> npt.NDArray[np.intp]:
    """Find scores that reach the threshold of their column, and perhaps some just below it.

    Args:
        scores: (r, C) of any float type.
        thresholds: (C,), all above 0.

    Returns:
        Positions in the flattened scores.
    """
    if scores.dtype == torch.float32:
        return np.flatnonzero(scores.numpy() >= thresholds)
    wide = torch.from_numpy(thresholds)
    narrow = wide.to(scores.dtype)
    # Positive floats are in the order of their bits, and a negative float has negative bits.
    # A threshold that was rounded up goes down by one step.
    bits = bits_of(narrow) - (narrow.float() > wide).numpy()
    return np.flatnonzero(bits_of(scores) >= bits.astype(np.int16))


def float32_product(rows: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
    """Multiply (r, D) by (C, D) to (r, C) in float32 on the CPU.

    By oneDNN wherever torch has it, else by the BLAS that torch was built with. The rule is fixed,
    because the two differ in the last bits: every process on a machine must get equal scores.
    """
    if not has_onednn():
        return torch.mm(rows, queries.T)
    product: torch.Tensor = torch.ops.mkldnn._linear_pointwise(rows, queries, None, "none", [], "")
    return product

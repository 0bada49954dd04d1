"""The matrix product of a search: fast, and honest about how far off it may be."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.blocks import Block

# Rows converted at a time: 4096 x 512 float32 is 8 MB, which stays in the cache.
_ROWS = 4096
# Stored vectors are unit vectors rounded to half precision or int8.
MAX_NORM = 1.01


def wide_scores(block: Block, queries: torch.Tensor) -> npt.NDArray[np.float32]:
    """Multiply in float32: (C, D) queries with a block's r regions to (C, r)."""
    count = len(block.vectors)
    out = torch.empty(len(queries), count)
    buffer = torch.empty(min(_ROWS, count), queries.shape[1])
    stored = as_tensor(block.vectors)
    for start in range(0, count, _ROWS):
        part = stored[start : start + _ROWS]
        wide = buffer[: len(part)].copy_(part)
        torch.mm(queries, wide.T, out=out[:, start : start + len(part)])
    if block.scales is not None:
        out *= torch.from_numpy(np.ascontiguousarray(block.scales))
    return out.numpy()


def exact_scores(
    vectors: npt.NDArray[Any],
    scales: npt.NDArray[np.float32] | None,
    regions: npt.NDArray[np.int64],
    query: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Score some rows of the vectors against one query in float64.

    Rounded to twelve digits, so that equal vectors score equal wherever they lie.
    """
    out = np.empty(len(regions))
    column = torch.from_numpy(query)
    stored = as_tensor(vectors)
    for start in range(0, len(regions), _ROWS):
        chosen = torch.from_numpy(regions[start : start + _ROWS])
        part = stored.index_select(0, chosen).double()
        out[start : start + len(chosen)] = torch.mv(part, column).numpy()
    if scales is not None:
        out *= scales[regions]
    return np.round(out, 12)


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """See an array, a read-only memory map too, as a tensor without a copy."""
    with warnings.catch_warnings():
        # torch warns that it could write into a read-only array; nothing here does.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)

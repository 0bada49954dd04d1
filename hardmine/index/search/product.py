"""The matrix product of a search: as fast as the machine allows, and honest about its error."""

from __future__ import annotations

import copy
import functools

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block
from hardmine.index.search.kernels import (
    LIFT,
    MIDDLE,
    SMALLEST,
    fastest_float32_product,
    shift_to_bfloat16,
)
from hardmine.index.search.threads import best_seconds
from hardmine.index.storage.store import as_tensor

# Stored vectors are unit vectors rounded to half precision or int8.
MAX_NORM = 1.01
# Rows converted and multiplied at a time: 2048 x 512 in half precision are 2 MB.
_ROWS = 2048
# Scores multiplied at a time where nothing is converted.
_SCORES = 1 << 19


class Product:
    """Scores of a block's regions for C queries, with a bound on how far they are off.

    A score s that comes back lies within ``absolute + relative * |s|`` of the exact one.

    Args:
        queries: (C, D) float32.
        dtype: What to multiply in; None takes the fastest on this machine.
        device: Where to multiply.
    """

    def __init__(
        self,
        queries: npt.NDArray[np.float32],
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.dtype = dtype or fastest_dtype(queries.shape[1], len(queries), self.device)
        if np.abs(queries).max(initial=0.0) > 2:
            # No unit vectors; half precision could overflow.
            self.dtype = torch.float32
        self._rooms: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        wide = torch.from_numpy(queries)
        self._queries = wide.to(self.device, self.dtype)
        # For vectors that shift_to_bfloat16 gave back.
        self._lifted = (wide * (MIDDLE * LIFT)).to(torch.bfloat16)
        self._float32_product = fastest_float32_product(queries.shape[1])
        self.absolute = self._bound(queries.astype(np.float64))
        limits = torch.finfo(self.dtype)
        # The result is rounded to the same type, then scaled in float32 ...
        self.relative = limits.eps / 2 + 2.0**-23
        # ... and the smallest steps are absolute.
        self.absolute += limits.eps * limits.tiny

    @property
    def num_queries(self) -> int:
        """C."""
        return self._queries.shape[0]

    def with_own_buffers(self) -> Product:
        """The same for another thread."""
        other = copy.copy(self)
        other._rooms = {}
        return other

    def __call__(self, block: Block) -> torch.Tensor:
        """Multiply to scores by region, (r, C) of some float type; the next call overwrites."""
        stored, scales = block.vectors, block.scales
        count, total = self.num_queries, stored.shape[0]
        kind = self.dtype if scales is None else torch.float32
        scores = self._room("scores", total, count, kind)
        rows = _SCORES // max(count, 1) if self._as_it_is(stored) else _ROWS
        for start in range(0, total, rows):
            here = scores[start : start + rows]
            self._multiply(stored[start : start + rows], here)
            if scales is not None:
                here *= as_tensor(np.array(scales[start : start + rows]))[:, None]
        return scores

    def _multiply(self, stored: torch.Tensor, out: torch.Tensor) -> None:
        queries = self._queries
        if self._as_it_is(stored) or self.device.type != "cpu":
            part = stored.to(self.device, self.dtype)
        else:
            part = self._room("part", stored.shape[0], stored.shape[1], self.dtype)
            if self.dtype == torch.bfloat16 and stored.dtype == torch.float16:
                shift_to_bfloat16(stored, part)
                queries = self._lifted
            else:
                part.copy_(stored)
        if self.dtype == torch.float32 and self.device.type == "cpu":
            out.copy_(self._float32_product(part, queries))
        elif out.dtype == self.dtype and self.device.type == "cpu":
            torch.mm(part, queries.T, out=out)
        else:
            out.copy_(torch.mm(part, queries.T))

    def _as_it_is(self, stored: torch.Tensor) -> bool:
        return stored.dtype == self.dtype and self.device.type == "cpu"

    def _room(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """A buffer that is kept: fresh memory of this size costs more than the arithmetic."""
        key, count = (name, dtype), rows * columns
        if key not in self._rooms or self._rooms[key].shape[0] < count:
            self._rooms[key] = torch.empty(count, dtype=dtype)
        return self._rooms[key][:count].view(rows, columns)

    def _bound(self, queries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        dim = queries.shape[1]
        # What converting a stored vector of length 1 may change, at most.
        convert = 0.0
        multiplied = [self._queries.double().cpu().numpy()]
        if self.dtype == torch.bfloat16:
            convert = 2.0**-8
            if self.device.type == "cpu":
                convert = float(np.hypot(MIDDLE - 1, SMALLEST * dim**0.5))
                multiplied.append(self._lifted.double().numpy() / (MIDDLE * LIFT))
        # A sum of D products in float32, in whatever order ...
        convert += dim * 2.0**-24
        if self.device.type == "cuda" and self.dtype == torch.float16:
            # ... and partial sums that cuBLAS may add up in half precision.
            convert += 2.0**-10
        # To which comes what rounding the queries did, known exactly.
        bounds = [
            np.linalg.norm(kept - queries, axis=1) + convert * np.linalg.norm(kept, axis=1)
            for kept in multiplied
        ]
        return np.asarray(np.max(bounds, axis=0) * MAX_NORM)


@functools.lru_cache(maxsize=64)
def _probe(dim: int, count: int) -> torch.dtype:
    """Time each type on a thousand rows; drop what sums in less than float32."""
    rows = torch.full((_ROWS, dim), dim**-0.5, dtype=torch.float16)
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        able = can_multiply(dtype, rows.device)
        if dtype == torch.float32 or (able and _sums_in_float32(dtype, dim)):
            product = Product(np.full((count, dim), dim**-0.5, np.float32), dtype)
            out = torch.empty(_ROWS, count, dtype=dtype)
            seconds[dtype] = best_seconds(lambda: product._multiply(rows, out))  # noqa: B023
    return min(seconds, key=seconds.__getitem__)


@functools.lru_cache
def can_multiply(dtype: torch.dtype, device: torch.device) -> bool:
    """Whether this torch has a product in that type: 2.1 has none in float16 on a CPU."""
    ones = torch.ones((1, 1), dtype=dtype, device=device)
    try:
        torch.mm(ones, ones)
    except RuntimeError:
        return False
    return True


def _sums_in_float32(dtype: torch.dtype, dim: int) -> bool:
    """Whether one large product and many small ones keep the small ones."""
    values = torch.full((16, dim), 2.0**-6)
    values[:, 0] = 1.0
    wide = (values @ values.T).double()
    narrow = (values.to(dtype) @ values.to(dtype).T).double()
    return bool((narrow - wide).abs().max() <= torch.finfo(dtype).eps * wide.max())


def fastest_dtype(dim: int, count: int, device: torch.device) -> torch.dtype:
    """What to multiply C queries of D dimensions in; the answer is the same with any."""
    if device.type == "cuda":
        return torch.float16
    # Speed depends on the shape class, not on the exact number of queries.
    return _probe(dim, min(1 << (count - 1).bit_length(), 64) if count else 1)

"""The matrix product of a search: as fast as the machine allows, and honest about its error."""

from __future__ import annotations

import functools
import time
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.blocks import Block, max_by_image

Scratch = dict[tuple[str, torch.dtype], torch.Tensor]
# Stored vectors are unit vectors rounded to half precision or int8.
MAX_NORM = 1.01
# Rows converted at a time: 1024 x 512 float32 is 2 MB, which stays in the cache.
_ROWS = 1024
# Scores multiplied at a time where nothing is converted.
_SCORES = 1 << 19


class Product:
    """Scores of C queries against the regions of a block, with a bound on how far they are off.

    A score s that comes back lies within ``absolute + relative * |s|`` of the exact one.

    Args:
        queries: (C, D) float32.
        dtype: What to multiply in; None takes the fastest on this machine.
        device: Where to multiply.
        scratch: Buffers to use, to be shared by products that are asked one after the other.
    """

    def __init__(
        self,
        queries: npt.NDArray[np.float32],
        dtype: torch.dtype | None = None,
        device: torch.device | None = None,
        scratch: Scratch | None = None,
    ) -> None:
        self.device = device or torch.device("cpu")
        self.dtype = dtype or fastest_dtype(queries.shape[1], len(queries), self.device)
        if np.abs(queries).max(initial=0.0) > 2:
            # No unit vectors; half precision could overflow.
            self.dtype = torch.float32
        self._rooms: Scratch = {} if scratch is None else scratch
        self.queries = torch.from_numpy(queries).to(self.device, self.dtype)
        self.absolute = self._bound(queries.astype(np.float64))
        # The result is rounded to the same type once; the smallest steps are absolute.
        limits = torch.finfo(self.dtype)
        self.relative = limits.eps / 2
        self.absolute += limits.eps * limits.tiny

    def __call__(self, block: Block) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Multiply to scores by image (C, n) and by region (C, r); the next call overwrites both.

        An image without regions scores -inf.
        """
        stored = as_tensor(block.vectors)
        count, total = self.queries.shape[0], stored.shape[0]
        regions = self._room("regions", count, total, torch.float32)
        each = block.regions_each
        images = self._room("images", count, total // each if each else 0, torch.float32)
        as_it_is = stored.dtype == self.dtype and self.device.type == "cpu"
        rows = _SCORES // max(count, 1) if as_it_is else _ROWS
        rows = max(rows // max(each, 1), 1) * max(each, 1)
        for start in range(0, total, rows):
            part = self._converted(stored[start : start + rows])
            stop = start + part.shape[0]
            scores = self._room("scores", count, stop - start, self.dtype)
            torch.mm(self.queries, part.T, out=scores)
            here = regions[:, start:stop]
            here.copy_(scores)
            if block.scales is not None:
                here *= as_tensor(block.scales[start:stop])
            if each:
                # While they are in the cache.
                best = images[:, start // each : stop // each]
                torch.amax(here.view(count, -1, each), 2, out=best)
        if not each:
            return max_by_image(regions.numpy(), block.offsets), regions.numpy()
        return images.numpy(), regions.numpy()

    def _converted(self, part: torch.Tensor) -> torch.Tensor:
        if part.dtype == self.dtype or self.device.type != "cpu":
            return part.to(self.device).to(self.dtype)
        if self.dtype == torch.bfloat16 and part.dtype == torch.float16:
            # torch has no fast way from one half type to the other.
            part = self._room("wide", part.shape[0], part.shape[1], torch.float32).copy_(part)
        return self._room("part", part.shape[0], part.shape[1], self.dtype).copy_(part)

    def _room(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """A buffer that is kept: fresh memory of this size costs more than the arithmetic."""
        key, count = (name, dtype), rows * columns
        if key not in self._rooms or self._rooms[key].shape[0] < count:
            where = "cpu" if name in ("regions", "images") else self.device
            self._rooms[key] = torch.empty(count, dtype=dtype, device=where)
        return self._rooms[key][:count].view(rows, columns)

    def _bound(self, queries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        kept = self.queries.double().cpu().numpy()
        norms = np.linalg.norm(kept, axis=1)
        # What rounding the queries did, known exactly ...
        bound = np.linalg.norm(kept - queries, axis=1)
        # ... a sum of D products in float32, in whatever order ...
        bound += queries.shape[1] * 2.0**-24 * norms
        if self.dtype == torch.bfloat16:
            # ... each component of a stored vector rounded to 8 bits (int8 has no more) ...
            bound += 2.0**-8 * norms
        if self.device.type == "cuda" and self.dtype == torch.float16:
            # ... and partial sums that cuBLAS may add up in half precision.
            bound += 2.0**-10 * norms
        return np.asarray(bound * MAX_NORM)


@functools.lru_cache(maxsize=64)
def _probe(dim: int, count: int) -> torch.dtype:
    """Time each type on a thousand rows; drop what sums in less than float32."""
    rows = as_tensor(np.full((_ROWS, dim), dim**-0.5, np.float16))
    best, least = torch.float32, float("inf")
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        product = Product(np.full((count, dim), dim**-0.5, np.float32), dtype)
        if dtype != torch.float32 and not _sums_in_float32(dtype, dim):
            continue
        for _ in range(3):
            start = time.perf_counter()
            torch.mm(product.queries, product._converted(rows).T)
            elapsed = time.perf_counter() - start
            if elapsed < least:
                best, least = dtype, elapsed
    return best


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

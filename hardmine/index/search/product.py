"""Multiplies stored vectors by queries in a CPU's fast dtype, and bounds the rounding error."""

from __future__ import annotations

import copy
import functools

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block
from hardmine.index.search.int8 import TwoByteQueries
from hardmine.index.search.kernels import (
    SHIFT_CENTER,
    SHIFT_SCALE,
    SMALLEST_NORMAL,
    float32_product,
    shift_to_bfloat16,
)
from hardmine.processor import half_precision_units, mkl_is_faster, multiplies_bytes

# Largest norm of a stored vector: a unit vector rounded to float16 or int8.
MAX_NORM = 1.01
# Largest norm of a query that is multiplied in half precision.
_MAX_QUERY = 2.0
# Rows converted and multiplied at a time: 2048 x 512 in half precision are 2 MB.
_ROWS = 2048
# AMX multiplies these so fast that the start of each call counts.
_ROWS_BY_AMX = 4096
# The same where MKL multiplies in float32, 512 x 512 are 1 MB, and where bytes are multiplied, 512
# sums for 80 queries are 0.3 MB.
_ROWS_BY_MKL = _ROWS_OF_BYTES = 512
# Scores multiplied at a time where nothing is converted.
_SCORES = 1 << 19
# What a CPU with these instructions multiplies in, the first that applies. float16 needs no
# conversion of the stored vectors, and AMX does several times as much as AVX-512.
_DTYPE_OF_UNIT = {
    "amx_fp16": torch.float16,
    "amx_bf16": torch.bfloat16,
    "avx512_bf16": torch.bfloat16,
    "avx512_fp16": torch.float16,
    "bf16": torch.bfloat16,
}
# The product with one or two queries takes as long as reading the vectors, and float16 is read as
# it is stored. torch has had a fast product of float16 and a vector on x86 since 2.6.
_FEW_QUERIES = 2
_FAST_FLOAT16 = (2, 6)
# int8 is slow to convert to float16. On these CPUs torch multiplies it by bfloat16 as it is stored,
# reading this many components at a time or half as many, also beyond the end of a vector.
_INT8_CPUS = ("AVX2", "AVX512")
_INT8_STEP = 32


class Product:
    """Scores of a block's regions for C queries, with a bound on their error.

    A returned score s lies within ``absolute + relative * |s|`` of the exact score.

    Args:
        queries: (C, D) float32.
        dtype: What to multiply in; ``search_dtype`` chooses if None. int8 is for int8 vectors.
        repeatable: Whether a score must have the same bits for any number of queries.
    """

    def __init__(
        self,
        queries: npt.NDArray[np.float32],
        dtype: torch.dtype | None = None,
        *,
        repeatable: bool = True,
    ) -> None:
        self.dtype = dtype or search_dtype(queries.shape[1], len(queries))
        if np.linalg.norm(queries.astype(np.float64), axis=1).max(initial=0.0) > _MAX_QUERY:
            # Half precision could overflow: an int8 vector is up to 127 times the root of D long.
            self.dtype = torch.float32
        in_float32 = self.dtype == torch.float32
        self._by_mkl = in_float32 and not repeatable and mkl_is_faster()
        self._by_onednn = in_float32 and not self._by_mkl
        has_amx = "amx_bf16" in (half_precision_units() or ())
        self._by_amx = self.dtype == torch.bfloat16 and has_amx
        few_in_bfloat16 = self.dtype == torch.bfloat16 and len(queries) <= _FEW_QUERIES
        self._reads_int8 = few_in_bfloat16 and reads_int8(queries.shape[1])
        self._buffers: dict[tuple[str, torch.dtype], torch.Tensor] = {}
        # A copy in torch's own memory is aligned. BLAS may sum unaligned vectors in another order.
        wide = torch.from_numpy(queries).clone()
        self._in_bytes = TwoByteQueries(queries) if self.dtype == torch.int8 else None
        self._queries = wide.to(torch.float32 if self._in_bytes else self.dtype)
        self._columns = self._queries.T
        # For vectors from shift_to_bfloat16.
        self._shifted_columns = (wide * (SHIFT_CENTER * SHIFT_SCALE)).to(torch.bfloat16).T
        self.absolute = self._bound(queries.astype(np.float64))
        limits = torch.finfo(self._queries.dtype)
        # The result is rounded to the same dtype, then scaled in float32 ...
        self.relative = limits.eps / 2 + 2.0**-23
        # ... and the smallest steps are absolute.
        self.absolute += limits.eps * limits.tiny

    @property
    def num_queries(self) -> int:
        """C."""
        return self._queries.shape[0]

    def with_own_buffers(self) -> Product:
        """The same product for another thread."""
        other = copy.copy(self)
        other._buffers = {}
        return other

    def __call__(self, block: Block) -> torch.Tensor:
        """Return scores by region, (r, C) of some float type; the next call overwrites them."""
        dtype = self._queries.dtype if block.scales is None else torch.float32
        scores = self._buffer("scores", int(block.offsets[-1]), self.num_queries, dtype)
        scales = None if block.scales is None else torch.from_numpy(block.scales)[:, None]
        if scales is not None and self._in_bytes:
            scales = scales * self._in_bytes.scale
        done = 0
        for stored in block.pieces:
            rows = self._rows_at_a_time(stored)
            # One call makes all views: to slice for each chunk takes longer.
            parts = torch.split(scores[done : done + stored.shape[0]], rows)
            for chunk, part in zip(torch.split(stored, rows), parts, strict=True):
                self._multiply(chunk, part)
                if scales is not None:
                    part *= scales[done : done + part.shape[0]]
                done += part.shape[0]
        return scores

    def _rows_at_a_time(self, stored: torch.Tensor) -> int:
        if self._in_bytes:
            return _ROWS_OF_BYTES
        as_stored = stored.dtype == self.dtype or (self._reads_int8 and stored.dtype == torch.int8)
        if as_stored:
            return _SCORES // max(self.num_queries, 1)
        if self._by_amx:
            return _ROWS_BY_AMX
        return _ROWS_BY_MKL if self._by_mkl else _ROWS

    def _multiply(self, stored: torch.Tensor, out: torch.Tensor) -> None:
        queries, columns = self._queries, self._columns
        if self._in_bytes:
            count = self.num_queries
            sums = self._buffer("sums", stored.shape[0], 2 * count, torch.int32)
            joined = self._buffer("joined", stored.shape[0], count, torch.int32)
            out.copy_(self._in_bytes.multiply(stored, sums, out=joined))
            return
        if self._reads_int8 and stored.dtype == torch.int8:
            ones = torch.ones(stored.shape[0], dtype=self.dtype)
            out.copy_(torch._weight_int8pack_mm(queries, stored, ones).T)
            return
        vectors = stored
        if stored.dtype != self.dtype:
            vectors = self._buffer("vectors", stored.shape[0], stored.shape[1], self.dtype)
            if self.dtype == torch.bfloat16 and stored.dtype == torch.float16:
                shift_to_bfloat16(stored, vectors)
                columns = self._shifted_columns
            else:
                vectors.copy_(stored)
        if self._by_onednn:
            out.copy_(float32_product(vectors, queries))
        elif out.dtype == self.dtype:
            torch.mm(vectors, columns, out=out)
        else:
            out.copy_(torch.mm(vectors, columns))

    def _buffer(self, name: str, rows: int, columns: int, dtype: torch.dtype) -> torch.Tensor:
        """Reuse memory: to allocate this much anew costs more than the arithmetic."""
        key, count = (name, dtype), rows * columns
        if key not in self._buffers or self._buffers[key].shape[0] < count:
            self._buffers[key] = torch.empty(count, dtype=dtype)
        return self._buffers[key][:count].view(rows, columns)

    def _bound(self, queries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(C,) largest absolute error of a score."""
        if self._in_bytes:
            # int8 vectors are taken as they are, and the sums are exact.
            return np.asarray(self._in_bytes.errors(queries) * MAX_NORM)
        dim = queries.shape[1]
        # Largest change when a stored vector of length 1 is converted.
        convert = 0.0
        multiplied = [self._queries.double().numpy()]
        if self.dtype == torch.bfloat16:
            convert = float(np.hypot(SHIFT_CENTER - 1, SMALLEST_NORMAL * dim**0.5))
            shifted = self._shifted_columns.T.double().numpy() / (SHIFT_CENTER * SHIFT_SCALE)
            multiplied.append(shifted)
        # Error of a sum of D products in float32, in any order.
        convert += dim * 2.0**-24
        # The error of rounding the queries is known exactly.
        bounds = [
            np.linalg.norm(rounded - queries, axis=1) + convert * np.linalg.norm(rounded, axis=1)
            for rounded in multiplied
        ]
        return np.asarray(np.max(bounds, axis=0) * MAX_NORM)


def search_dtype(dim: int, count: int, *, int8: bool = False) -> torch.dtype:
    """Choose the dtype in which to multiply C queries of D dimensions by float16 or int8 vectors.

    The choice follows from the hardware, the version of torch and C alone, never from a timing:
    every process on a machine makes the same one. A search gives the same hits in any dtype.
    """
    few = count <= _FEW_QUERIES
    if few and int8 and reads_int8(dim):
        return torch.bfloat16
    if not few and int8 and multiplies_bytes() and can_multiply(torch.int8):
        return torch.int8
    if few and not int8 and _torch_version() >= _FAST_FLOAT16:
        candidates = [torch.float16]
    else:
        units = half_precision_units() or ()
        candidates = [dtype for unit, dtype in _DTYPE_OF_UNIT.items() if unit in units]
    usable = (d for d in candidates if can_multiply(d) and _sums_in_float32(d, dim))
    return next(usable, torch.float32)


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)


@functools.cache
def can_multiply(dtype: torch.dtype) -> bool:
    """Whether torch can multiply matrices of a dtype on the CPU; 2.1 cannot in float16."""
    ones = torch.ones((1, 1), dtype=dtype)
    try:
        if dtype == torch.int8:
            return torch._int_mm(ones, ones).dtype == torch.int32
        torch.mm(ones, ones)
    except (AttributeError, RuntimeError):
        return False
    return True


def reads_int8(dim: int) -> bool:
    """Whether torch multiplies int8 vectors by bfloat16 queries without converting them first."""
    fast = torch.backends.cpu.get_cpu_capability() in _INT8_CPUS
    return fast and dim % _INT8_STEP == 0 and _can_multiply_int8()


@functools.cache
def _can_multiply_int8() -> bool:
    """Whether this version of torch has the product."""
    ones = torch.ones((5, _INT8_STEP), dtype=torch.int8)
    try:
        torch._weight_int8pack_mm(ones[:1].bfloat16(), ones, ones[:, 0].bfloat16())
    except (AttributeError, RuntimeError):
        return False
    return True


@functools.lru_cache(maxsize=64)
def _sums_in_float32(dtype: torch.dtype, dim: int) -> bool:
    """Whether a product on the CPU keeps small terms beside a large one, as float32 does."""
    values = torch.full((16, dim), 2.0**-6)
    values[:, 0] = 1.0
    wide = (values @ values.T).double()
    narrow = (values.to(dtype) @ values.to(dtype).T).double()
    return bool((narrow - wide).abs().max() <= torch.finfo(dtype).eps * wide.max())

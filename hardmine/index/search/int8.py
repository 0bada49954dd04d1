"""Multiplies int8 vectors by queries of two bytes, for CPUs that multiply bytes fastest."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch

# A query's second byte counts steps this many times smaller than the first.
_FINER = 128
# Largest component of a query, and of a stored vector.
_LARGEST, _LARGEST_STORED = 127, 128


class TwoByteQueries:
    """C queries, each rounded to two bytes a component: a first byte and what it leaves.

    One byte would leave up to three times as many candidates to score exactly.

    Attributes:
        scale: What ``multiply`` must be multiplied by, a power of two.

    Args:
        queries: (C, D) float32.
    """

    def __init__(self, queries: npt.NDArray[np.float32]) -> None:
        count, dim = queries.shape
        # So small that the sum over D of both bytes together stays below 2**31.
        largest_sum = (2**31 - 1) // (_LARGEST_STORED * max(dim, 1))
        limit = min(_LARGEST, (largest_sum - _FINER // 2) // _FINER)
        assert limit > 0
        peak = float(np.abs(queries).max(initial=0.0)) or 1.0
        # Dividing by a power of two is exact.
        step = 2.0 ** math.ceil(math.log2(peak / limit))
        steps = torch.from_numpy(queries) / step
        first = steps.round()
        second = ((steps - first) * _FINER).round()
        # Not a transposed view: torch 2.14 multiplies by one of a single row wrongly.
        self._both = torch.empty((dim, 2 * count), dtype=torch.int8)
        self._both.copy_(torch.cat([first, second]).T)
        self.scale = step / _FINER

    def multiply(
        self, vectors: torch.Tensor, sums: torch.Tensor, out: torch.Tensor
    ) -> torch.Tensor:
        """Multiply (r, D) int8 vectors exactly, to (r, C) int32.

        Args:
            vectors: The stored vectors, without their scales.
            sums: (r, 2 C) int32 memory to work in.
            out: (r, C) int32 memory for the result.
        """
        count = out.shape[1]
        torch._int_mm(vectors, self._both, out=sums)
        return torch.add(sums[:, count:], sums[:, :count], alpha=_FINER, out=out)

    def errors(self, queries: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """(C,) length of what rounding changed."""
        first, second = self._both.T.double().numpy().reshape(2, *queries.shape)
        rounded = (_FINER * first + second) * self.scale
        return np.asarray(np.linalg.norm(rounded - queries, axis=1))

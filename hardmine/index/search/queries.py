"""Checks what is searched for, and brings queries of any length to about unit length."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError

# Scores are at most as large as the query is long; float32 ends at 3.4e38.
_MAX_LENGTH = 1e38
Scores = TypeVar("Scores", np.float32, np.float64)


@dataclass(frozen=True)
class Queries:
    """C queries, each divided by a power of two, so that they fit half precision.

    A division by a power of two is exact: a unit vector stays as it is to the bit, and scores are
    those of the given vectors once ``restore`` has multiplied them again.

    Attributes:
        vectors: (C, D) float32 with norms from 0.7 to 1.42, or 0.
        exponents: (C,) int32 powers of two that they were divided by.
    """

    vectors: npt.NDArray[np.float32]
    exponents: npt.NDArray[np.int32]

    def __len__(self) -> int:
        """C."""
        return len(self.vectors)

    def __getitem__(self, chosen: slice | list[int]) -> Queries:
        return Queries(self.vectors[chosen], self.exponents[chosen])

    def restore(self, scores: npt.NDArray[Scores]) -> npt.NDArray[Scores]:
        """Scores (C, ...) of the vectors as they were given."""
        if not self.exponents.any():
            return scores
        exponents = self.exponents.reshape(-1, *[1] * (scores.ndim - 1))
        return np.asarray(np.ldexp(scores, exponents), scores.dtype)


def check_queries(vectors: Any, dim: int) -> Queries:
    """Check (C, D) vectors to search for, NumPy or torch.

    Raises:
        InputError: If they are not C finite, real vectors of the index's dimension.
    """
    if isinstance(vectors, Queries):
        return vectors
    if isinstance(vectors, torch.Tensor) and not vectors.is_complex():
        vectors = vectors.detach().to("cpu", torch.float64).numpy()
    try:
        given = np.asarray(vectors)
    except ValueError as error:
        raise InputError(f"vectors must be (C, {dim}): {error}") from None
    if given.ndim != 2 or given.shape[1] != dim:
        raise InputError(
            f"vectors must be (C, {dim}), the index's dimension, got {given.shape}; "
            "were they made by another encoder?"
        )
    if given.dtype.kind not in "fiu":
        raise InputError(f"vectors must be real numbers, got {given.dtype}")
    wide = given.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(wide, axis=1)
    if not (lengths <= _MAX_LENGTH).all():
        what = (
            "NaN or infinity" if not np.isfinite(wide).all() else f"a norm of {lengths.max():.3g}"
        )
        raise InputError(f"vectors must be finite, with norms up to {_MAX_LENGTH:.0e}, got {what}")
    exponents = np.zeros(len(wide), np.int32)
    longer = lengths > 0
    exponents[longer] = np.rint(np.log2(lengths[longer]))
    scaled = np.ldexp(wide, -exponents[:, None]).astype(np.float32)
    return Queries(np.ascontiguousarray(scaled), exponents)


def check_k(k: Any, num_images: int) -> int:
    """Check the number of images to find; no more than there are, so that memory stays small.

    Raises:
        InputError: If it is not a whole number of at least 1.
    """
    try:
        count = operator.index(k)
    except TypeError:
        count = 0
    if count < 1 or isinstance(k, bool | np.bool_):
        raise InputError(f"k must be a whole number of at least 1, got {k!r}")
    return min(count, max(num_images, 1))


def check_rows(rows: npt.ArrayLike, num_images: int) -> npt.NDArray[np.int64]:
    """Check image rows to search in; return the different ones, ascending.

    Raises:
        InputError: If they are not whole numbers from 0 to below the number of images.
    """
    given = np.asarray(rows)
    if given.size and given.dtype.kind not in "iu":
        raise InputError(f"rows must be whole numbers, got {given.dtype}")
    unique = np.unique(given.astype(np.int64))
    if len(unique) and (unique[0] < 0 or unique[-1] >= num_images):
        raise InputError(
            f"rows must lie in 0 to {num_images - 1}, got {unique[0]} to {unique[-1]}; "
            "rows_of returns -1 for an id that the index lacks"
        )
    return unique

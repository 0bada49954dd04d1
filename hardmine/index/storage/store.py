"""An index as a search sees it: shards of regions, and the images that they belong to."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError
from hardmine.index.storage.columns import TextColumn


@dataclass(frozen=True)
class Shard:
    """R regions of n stored images, in the order they were written.

    Attributes:
        vectors: (R, D) float16 unit vectors, or int8 vectors to multiply by ``scales``; an array
            or a memory map.
        scales: (R,) float32, one for each int8 vector; None for float16.
        offsets: (n + 1,) int64: image i owns the regions ``offsets[i]`` to ``offsets[i + 1]``,
            possibly none.
        boxes: (R, 4) float16 or float32 xyxy, as shares of the image's width and height.
        mass: (R,) float16 or float32, share of the image's patches in the region.
        rows: (n,) int64 row of each stored image in ``Store.ids``; -1 for a removed image.
    """

    vectors: npt.NDArray[Any]
    scales: npt.NDArray[np.float32] | None
    offsets: npt.NDArray[np.int64]
    boxes: npt.NDArray[Any]
    mass: npt.NDArray[Any]
    rows: npt.NDArray[np.int64]

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or self.vectors.dtype not in (np.float16, np.int8):
            raise InputError(
                "vectors of a shard must be (R, D) float16 or int8, "
                f"got {self.vectors.shape} {self.vectors.dtype}"
            )
        regions, stored = len(self.vectors), len(self.rows)
        if (self.scales is None) != (self.vectors.dtype == np.float16):
            raise InputError("int8 vectors need one scale each, float16 vectors must have none")
        if self.scales is not None and self.scales.shape != (regions,):
            raise InputError(f"scales: expected shape ({regions},), got {self.scales.shape}")
        if self.boxes.shape != (regions, 4) or self.mass.shape != (regions,):
            raise InputError(
                f"boxes and mass: expected shapes {(regions, 4)} and {(regions,)}, "
                f"got {self.boxes.shape} and {self.mass.shape}"
            )
        offsets = self.offsets
        if offsets.shape != (stored + 1,) or offsets[0] != 0 or offsets[-1] != regions:
            raise InputError(
                f"offsets must be {stored + 1} positions from 0 to {regions}, "
                f"got {len(offsets)} from {offsets[:1]} to {offsets[-1:]}"
            )
        if (np.diff(offsets) < 0).any():
            raise InputError("offsets must not decrease")

    def __len__(self) -> int:
        """Number of stored images, removed ones included."""
        return len(self.rows)

    def read(self) -> None:
        """Read what has not been read yet: here nothing."""

    def with_rows(self, rows: npt.NDArray[np.int64]) -> Shard:
        """The same shard, its images in other rows."""
        return replace(self, rows=rows)

    @cached_property
    def tensor(self) -> torch.Tensor:
        """``vectors`` as a tensor, not copied."""
        return as_tensor(self.vectors)


_LAYOUT = {"scales", "offsets", "boxes", "mass"}


class UnreadShard(Shard):
    """A shard whose layout, all but vectors and rows, is read when it is first needed.

    Args:
        vectors: As in ``Shard``.
        rows: The same.
        read: Reads the whole shard.
    """

    def __init__(
        self,
        vectors: npt.NDArray[Any],
        rows: npt.NDArray[np.int64],
        read: Callable[[npt.NDArray[np.int64]], Shard],
    ) -> None:
        vars(self).update(vectors=vectors, rows=rows, _read=read)

    def __getattr__(self, name: str) -> Any:
        if name not in _LAYOUT:
            raise AttributeError(name)
        self.read()
        return vars(self)[name]

    def read(self) -> None:
        """Read the layout, if it has not been read yet."""
        if not vars(self).keys() >= _LAYOUT:
            shard = vars(self)["_read"](self.rows)
            vars(self).update({name: getattr(shard, name) for name in _LAYOUT})

    def with_rows(self, rows: npt.NDArray[np.int64]) -> Shard:
        """The same shard, its images in other rows."""
        return UnreadShard(self.vectors, rows, vars(self)["_read"])


@dataclass(frozen=True)
class Store:
    """N images and the shards that hold their regions.

    Attributes:
        root: Folder that ``paths`` are relative to.
        ids: (N,) int64 or str, unique.
        paths: N paths below ``root``.
        sizes: (N, 2) int32 height and width in pixels.
        dim: D.
        encoder_fingerprint: The encoder that made the vectors.
        clusters: The clustering spec, e.g. ``"kmeans:10+whole"``.
        shards: Each image row is in exactly one of them.
        folder: Where the index lies; None if it is in memory alone.
        digest: Hash of all its files, in hex; empty if it is in memory alone.
        parts: Digests of the indexes that it joins, in their order; empty if it joins none.
    """

    root: Path
    ids: npt.NDArray[Any]
    paths: Sequence[str]
    sizes: npt.NDArray[np.int32]
    dim: int
    encoder_fingerprint: str
    clusters: str
    shards: tuple[Shard, ...]
    folder: Path | None = None
    digest: str = ""
    parts: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        count = len(self.ids)
        if len(self.paths) != count or self.sizes.shape != (count, 2):
            raise InputError(
                f"paths and sizes: expected {count} and {(count, 2)}, one for each id, "
                f"got {len(self.paths)} and {self.sizes.shape}"
            )
        for shard in self.shards:
            if shard.vectors.shape[1] != self.dim:
                raise InputError(
                    f"vectors have {shard.vectors.shape[1]} dimensions, the index has {self.dim}"
                )
        rows = [shard.rows[shard.rows >= 0] for shard in self.shards]
        stored = np.sort(np.concatenate(rows)) if rows else np.zeros(0, np.int64)
        if not np.array_equal(stored, np.arange(count)):
            raise InputError(f"each of the {count} image rows must be in exactly one shard")

    def __len__(self) -> int:
        """N."""
        return len(self.ids)

    def read(self) -> None:
        """Read and check what has not been read yet: layouts of shards, and paths."""
        for shard in self.shards:
            shard.read()
        if isinstance(self.paths, TextColumn):
            self.paths.read()

    @property
    def num_regions(self) -> int:
        """Number of regions of all stored images, removed ones included."""
        return sum(len(shard.vectors) for shard in self.shards)

    @cached_property
    def locations(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """(N,) shard and (N,) slot, its position in that shard, of each image row."""
        shard_of, slot_of = np.zeros(len(self), np.int64), np.zeros(len(self), np.int64)
        for number, shard in enumerate(self.shards):
            kept = np.flatnonzero(shard.rows >= 0)
            shard_of[shard.rows[kept]] = number
            slot_of[shard.rows[kept]] = kept
        return shard_of, slot_of

    @cached_property
    def first_regions(self) -> npt.NDArray[np.int64]:
        """(N,) number of each image row's first region in its shard."""
        first = np.zeros(len(self), np.int64)
        for shard in self.shards:
            kept = np.flatnonzero(shard.rows >= 0)
            first[shard.rows[kept]] = shard.offsets[kept]
        return first

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """(N,) number of regions of each image row."""
        counts = np.zeros(len(self), np.int64)
        for shard in self.shards:
            kept = np.flatnonzero(shard.rows >= 0)
            counts[shard.rows[kept]] = np.diff(shard.offsets)[kept]
        return counts


def quantize_rows(
    vectors: npt.NDArray[Any],
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Quantize (R, D) vectors to int8 with one scale each; ``int8 * scale`` is the vector.

    A vector of zeros has scale 0.
    """
    wide = np.asarray(vectors, np.float32)
    scales = np.abs(wide).max(axis=1, initial=0.0) / 127.0
    safe = np.where(scales > 0, scales, 1.0)[:, None]
    return np.rint(wide / safe).astype(np.int8), scales.astype(np.float32)


def as_tensor(array: npt.NDArray[Any]) -> torch.Tensor:
    """View an array, or a read-only memory map, as a tensor without copying it."""
    with warnings.catch_warnings():
        # torch warns that writing into a read-only array is undefined; nothing here writes.
        warnings.filterwarnings("ignore", message=".*not writable")
        return torch.from_numpy(array)

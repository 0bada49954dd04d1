"""Splits a store into blocks of whole images, so that a search needs little memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.storage.store import Shard, Store


@dataclass(frozen=True)
class Block:
    """Some images of one shard and their regions.

    Attributes:
        rows: (n,) int64 image rows.
        offsets: (n + 1,) int64: image i owns the regions ``offsets[i]`` to ``offsets[i + 1]`` of
            this block.
        starts: (n,) int64 number of each image's first region in the shard.
        vectors: (r, D) float16 or int8; a view of the shard if its images are side by side.
        scales: (r,) float32 for int8 vectors, else None.
        shard: Number of the shard in its store.
    """

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    vectors: torch.Tensor
    scales: npt.NDArray[np.float32] | None
    shard: int

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @cached_property
    def regions_each(self) -> int:
        """Regions per image if all images have equally many; 0 if they differ."""
        counts = np.diff(self.offsets)
        return int(counts[0]) if len(counts) and (counts == counts[0]).all() else 0

    @cached_property
    def owners(self) -> npt.NDArray[np.int64]:
        """(r,) position in the block of each region's image."""
        return np.repeat(np.arange(len(self)), np.diff(self.offsets))


def iter_blocks(
    store: Store, max_regions: int, rows: npt.NDArray[np.int64] | None = None
) -> Iterator[Block]:
    """Iterate over images in the order in which they are stored.

    Args:
        store: The images.
        max_regions: Largest number of regions in a block; an image with more is a block alone.
        rows: Rows of the images, unique; None for all that are not removed.
    """
    for number, shard in enumerate(store.shards):
        if rows is None:
            slots = np.flatnonzero(shard.rows >= 0)
        else:
            shard_of, slot_of = store.locations
            slots = np.sort(slot_of[rows[shard_of[rows] == number]])
        ends = np.cumsum(np.diff(shard.offsets)[slots])
        start, used = 0, 0
        while start < len(slots):
            stop = int(np.searchsorted(ends, used + max_regions, side="right"))
            stop = max(stop, start + 1)
            yield _block(number, shard, slots[start:stop])
            start, used = stop, int(ends[stop - 1])


def region_rows(
    offsets: npt.NDArray[np.int64], images: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Numbers of the regions of some images, one image after the other.

    >>> region_rows(np.array([0, 2, 2, 5]), np.array([2, 0]))
    array([2, 3, 4, 0, 1])
    """
    counts = offsets[images + 1] - offsets[images]
    before = np.cumsum(counts) - counts
    return np.repeat(offsets[images] - before, counts) + np.arange(counts.sum())


def max_by_image(values: npt.NDArray[Any], offsets: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """Maximum over each image's regions: (r, ...) to (n, ...); -inf for an image without any."""
    if values.shape[1:] == (1,):
        # NumPy is several times as fast along one dimension.
        return max_by_image(values[:, 0], offsets)[:, None]
    counts = np.diff(offsets)
    best = np.full((len(counts), *values.shape[1:]), -np.inf, values.dtype)
    owners = np.flatnonzero(counts)
    if len(owners) == len(counts) and len(owners):
        np.maximum.reduceat(values, offsets[:-1], axis=0, out=best)
    elif len(owners):
        best[owners] = np.maximum.reduceat(values, offsets[:-1][owners], axis=0)
    return best


def _block(number: int, shard: Shard, slots: npt.NDArray[np.int64]) -> Block:
    counts = np.diff(shard.offsets)[slots]
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])
    first, last = int(slots[0]), int(slots[-1])
    chosen: Any
    if last - first + 1 == len(slots):
        chosen = slice(int(shard.offsets[first]), int(shard.offsets[last + 1]))
        vectors = shard.tensor[chosen]
    else:
        chosen = region_rows(shard.offsets, slots)
        vectors = shard.tensor.index_select(0, torch.from_numpy(chosen))
    scales = None if shard.scales is None else shard.scales[chosen]
    starts = shard.offsets[slots]
    return Block(shard.rows[slots], offsets, starts, vectors, scales, number)

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

# Number of a shard, the shard, and some of its slots.
_Part = tuple[int, Shard, npt.NDArray[np.int64]]


@dataclass(frozen=True)
class Block:
    """Some images and their regions, in the order in which they are stored.

    Attributes:
        rows: (n,) int64 image rows.
        offsets: (n + 1,) int64: image i owns the regions ``offsets[i]`` to ``offsets[i + 1]`` of
            this block.
        shards: (n,) int64 number of each image's shard in the store.
        starts: (n,) int64 number of each image's first region in its shard.
        pieces: Vectors, (r, D) float16 or int8 in all, in one piece or more for each shard; views
            of the shard if its images are side by side.
        scales: (r,) float32 for int8 vectors, else None.
    """

    rows: npt.NDArray[np.int64]
    offsets: npt.NDArray[np.int64]
    shards: npt.NDArray[np.int64]
    starts: npt.NDArray[np.int64]
    pieces: tuple[torch.Tensor, ...]
    scales: npt.NDArray[np.float32] | None

    def __len__(self) -> int:
        """N."""
        return len(self.rows)

    @property
    def vectors(self) -> torch.Tensor:
        """(r, D); copied if they lie in several pieces."""
        return self.pieces[0] if len(self.pieces) == 1 else torch.cat(self.pieces)

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
    if rows is not None:
        shard_of, slot_of = store.locations
        rows = rows[np.lexsort((slot_of[rows], shard_of[rows]))]
        bounds = np.searchsorted(shard_of[rows], np.arange(len(store.shards) + 1))
    # A block may go over from one shard to the next, so that it is large though shards are small.
    parts: list[_Part] = []
    used = 0
    for number, shard in enumerate(store.shards):
        if rows is None:
            slots = np.flatnonzero(shard.rows >= 0)
        else:
            slots = slot_of[rows[bounds[number] : bounds[number + 1]]]
        if len(slots) == 0:
            continue
        ends = np.cumsum(np.diff(shard.offsets)[slots])
        start, done = 0, 0
        while start < len(slots):
            stop = int(np.searchsorted(ends, done + max_regions - used, side="right"))
            if stop <= start and parts:
                yield _block(parts)
                parts, used = [], 0
                continue
            stop = max(stop, start + 1)
            parts.append((number, shard, slots[start:stop]))
            used += int(ends[stop - 1]) - done
            start, done = stop, int(ends[stop - 1])
    if parts:
        yield _block(parts)


def region_rows(
    offsets: npt.NDArray[np.int64], images: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Numbers of the regions of some images, one image after the other.

    >>> region_rows(np.array([0, 2, 2, 5]), np.array([2, 0]))
    array([2, 3, 4, 0, 1])
    """
    return ranges(offsets[images], offsets[images + 1] - offsets[images])


def ranges(starts: npt.NDArray[np.int64], counts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Consecutive numbers from each start, one range after the other.

    >>> ranges(np.array([7, 2]), np.array([1, 3]))
    array([7, 2, 3, 4])
    """
    before = np.cumsum(counts) - counts
    return np.repeat(starts - before, counts) + np.arange(counts.sum())


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


def _block(parts: list[_Part]) -> Block:
    counts = [np.diff(shard.offsets)[slots] for _, shard, slots in parts]
    pieces, scales = [], []
    for _, shard, slots in parts:
        first, last = int(slots[0]), int(slots[-1])
        chosen: Any
        if last - first + 1 == len(slots):
            chosen = slice(int(shard.offsets[first]), int(shard.offsets[last + 1]))
            pieces.append(shard.tensor[chosen])
        else:
            chosen = region_rows(shard.offsets, slots)
            pieces.append(shard.tensor.index_select(0, torch.from_numpy(chosen)))
        if shard.scales is not None:
            scales.append(shard.scales[chosen])
    return Block(
        rows=np.concatenate([shard.rows[slots] for _, shard, slots in parts]),
        offsets=np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate(counts))]),
        shards=np.repeat([number for number, _, _ in parts], [len(slots) for *_, slots in parts]),
        starts=np.concatenate([shard.offsets[slots] for _, shard, slots in parts]),
        pieces=tuple(pieces),
        scales=np.concatenate(scales) if scales else None,
    )

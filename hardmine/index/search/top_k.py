"""Scores candidates exactly and keeps the best k images of each query."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import ranges
from hardmine.index.storage.store import Store

# Regions scored at a time: 128 x 512 float64 are 0.5 MB and fit the cache of one core.
_ROWS = 128
# Regions copied at a time: 2048 x 512 float16 are 2 MB.
_GATHERED = 2048


class TopK:
    """The best k images of C queries, among those added so far.

    Attributes:
        rows: (C, k) image rows, best first, equal scores ordered by row; -1 for none.
        scores: (C, k) float64 scores of the images; -inf for none.
        shards: (C, k) shard of each image's best region.
        regions: (C, k) number of that region in the shard.

    Args:
        store: Holds the vectors.
        queries: (C, D).
        k: Number of images to keep.
    """

    def __init__(self, store: Store, queries: npt.NDArray[np.float32], k: int) -> None:
        shape = (len(queries), k)
        self.rows = np.full(shape, -1, np.int64)
        self.scores = np.full(shape, -np.inf)
        self.shards = np.zeros(shape, np.int64)
        self.regions = np.zeros(shape, np.int64)
        self._store, self._queries = store, queries.astype(np.float64)

    def score(
        self,
        queries: npt.NDArray[np.integer[Any]],
        shards: npt.NDArray[np.integer[Any]],
        regions: npt.NDArray[np.int64],
    ) -> npt.NDArray[np.float64]:
        """Score regions, each for one query, as ``exact_scores`` does."""
        return exact_scores(self._store, self._queries, queries, shards, regions)

    def add(
        self,
        query: int,
        values: npt.NDArray[np.float64],
        shards: npt.NDArray[np.integer[Any]],
        regions: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
    ) -> None:
        """Keep the images of some regions if they are among the best k of a query.

        Args:
            query: Number of the query.
            values: (P,) exact score of each region.
            shards: (P,) shard of each region.
            regions: (P,) number of each region in its shard.
            rows: (P,) image of each region; equal images side by side, none added before.
        """
        if len(rows) == 0:
            return
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        best_regions = argmax_per_image(values, np.diff(starts, append=len(rows)))
        filled = self.rows[query] >= 0
        scores = np.concatenate([self.scores[query, filled], values[best_regions]])
        columns = (
            (self.rows, rows),
            (self.shards, shards),
            (self.regions, regions),
        )
        merged = [np.concatenate([kept[query, filled], new[best_regions]]) for kept, new in columns]
        order = np.lexsort((merged[0], -scores))[: self.rows.shape[1]]
        self.scores[query, : len(order)] = scores[order]
        for (kept, _), column in zip(columns, merged, strict=True):
            kept[query, : len(order)] = column[order]

    def replace(self, queries: npt.NDArray[np.intp], other: TopK) -> None:
        """Replace the images of some queries by those of another search."""
        for old, new in (
            (self.rows, other.rows),
            (self.scores, other.scores),
            (self.shards, other.shards),
            (self.regions, other.regions),
        ):
            old[queries] = new


def exact_scores(
    store: Store,
    queries: npt.NDArray[np.float64],
    numbers: npt.NDArray[np.integer[Any]],
    shards: npt.NDArray[np.integer[Any]],
    regions: npt.NDArray[np.int64],
) -> npt.NDArray[np.float64]:
    """Score some regions, each for one query, in float64: (P,).

    Scores are rounded to 12 digits, so that equal vectors score equal in any row.

    Args:
        store: Holds the vectors.
        queries: (C, D).
        numbers: (P,) query of each region; equal ones side by side.
        shards: (P,) shard of each region.
        regions: (P,) number of each region in its shard.
    """
    if len(regions) == 0:
        return np.zeros(0)
    out = torch.empty(len(regions), dtype=torch.float64)
    columns = torch.from_numpy(queries)
    # Memory is reused: to allocate it for each step takes longer than the arithmetic.
    stored = store.shards[0].tensor
    gathered = stored.new_empty((min(_GATHERED, len(regions)), store.dim))
    narrow = stored.new_empty((_ROWS, store.dim))
    single = torch.empty((_ROWS, store.dim))
    wide = torch.empty((_ROWS, store.dim), dtype=torch.float64)
    for start in range(0, len(regions), _GATHERED):
        # Of several queries together, so that each shard is read once for all of them.
        part = slice(start, start + _GATHERED)
        vectors = gathered[: len(regions[part])]
        scales, places = _gather(store, shards[part], regions[part], vectors)
        for first, stop in runs(numbers[part]):
            column = columns[int(numbers[start + first])]
            for row in range(first, stop, _ROWS):
                count, done = min(_ROWS, stop - row), start + row
                chosen = places[row : row + count]
                torch.index_select(vectors, 0, chosen, out=narrow[:count])
                # From half to double by way of float is faster, and exact too.
                wide[:count].copy_(single[:count].copy_(narrow[:count]))
                torch.mv(wide[:count], column, out=out[done : done + count])
        if scales is not None:
            out[part] *= torch.from_numpy(scales)[places]
    return np.round(out.numpy(), 12)


def best_of_images(
    store: Store, query: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
) -> tuple[
    npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.int64]
]:
    """Find the best region of some images for one query.

    Returns:
        Positions in ``rows`` of the images that have regions; the score, shard and number of the
        best region of each.
    """
    owners = np.flatnonzero(store.counts[rows])
    counts, shard_of = store.counts[rows[owners]], store.locations[0]
    shards = np.repeat(shard_of[rows[owners]], counts)
    regions = ranges(store.first_regions[rows[owners]], counts)
    values = exact_scores(store, query[None], np.zeros(len(regions), np.int64), shards, regions)
    best = argmax_per_image(values, counts)
    return owners, values[best], shards[best], regions[best]


def _gather(
    store: Store,
    shards: npt.NDArray[np.integer[Any]],
    regions: npt.NDArray[np.int64],
    vectors: torch.Tensor,
) -> tuple[npt.NDArray[np.float32] | None, torch.Tensor]:
    """Copy some vectors as they are stored, shard by shard, to ``vectors``, (P, D).

    Returns:
        Their (P,) scales if they are int8, and the (P,) place of each region in both.
    """
    order = np.argsort(shards, kind="stable")
    places, chosen = torch.empty(len(order), dtype=torch.int64), torch.from_numpy(regions[order])
    places[torch.from_numpy(order)] = torch.arange(len(order))
    scales = None if store.shards[0].scales is None else np.empty(len(regions), np.float32)
    for start, stop in runs(shards[order]):
        shard = store.shards[shards[order[start]]]
        torch.index_select(shard.tensor, 0, chosen[start:stop], out=vectors[start:stop])
        if scales is not None and shard.scales is not None:
            scales[start:stop] = shard.scales[regions[order[start:stop]]]
    return scales, places


def runs(values: npt.NDArray[np.integer[Any]]) -> list[tuple[int, int]]:
    """First position, and the one after the last, of each run of equal values.

    >>> runs(np.array([5, 5, 1]))
    [(0, 2), (2, 3)]
    """
    if len(values) == 0:
        return []
    return list(
        itertools.pairwise([0, *(np.flatnonzero(np.diff(values)) + 1).tolist(), len(values)])
    )


def boxes_of(
    store: Store, shards: npt.NDArray[np.integer[Any]], regions: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    """Boxes of some regions, (P, 4), given their shards and numbers, in any order."""
    out = np.zeros((len(regions), 4), np.float32)
    order = np.argsort(shards, kind="stable")
    for start, stop in runs(shards[order]):
        chosen = order[start:stop]
        out[chosen] = store.shards[shards[chosen[0]]].boxes[regions[chosen]]
    return out


def argmax_per_image(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Position of the first largest value of each image; every image has a value.

    >>> argmax_per_image(np.array([1.0, 3.0, 3.0, 0.5]), np.array([3, 1]))
    array([1, 3])
    """
    starts = np.cumsum(counts) - counts
    if len(starts) == len(values):
        return starts
    largest = np.repeat(np.maximum.reduceat(values, starts), counts)
    at_top = np.flatnonzero(values == largest)
    return np.asarray(at_top[np.searchsorted(at_top, starts)])

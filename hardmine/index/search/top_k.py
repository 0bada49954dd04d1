"""Scores candidates exactly and keeps the best k images of each query."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.storage.store import Store

# Regions scored at a time: 128 x 512 float64 are 0.5 MB and fit the cache of one core.
_ROWS = 128


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

    def add(
        self,
        query: int,
        shards: npt.NDArray[np.integer[Any]],
        regions: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
    ) -> None:
        """Score some regions for one query and keep their images if they are among the best k.

        Args:
            query: Number of the query.
            shards: (P,) shard of each region; equal shards side by side.
            regions: (P,) number of each region in its shard.
            rows: (P,) image of each region; equal images side by side, none added before.
        """
        if len(rows) == 0:
            return
        ends = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        values = np.concatenate(
            [
                self._score(int(shards[start]), regions[start:stop], query)
                for start, stop in itertools.pairwise(ends)
            ]
        )
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

    def _score(
        self, number: int, regions: npt.NDArray[np.int64], query: int
    ) -> npt.NDArray[np.float64]:
        shard = self._store.shards[number]
        return exact_scores(shard.tensor, shard.scales, regions, self._queries[query])


def exact_scores(
    vectors: torch.Tensor,
    scales: npt.NDArray[np.float32] | None,
    regions: npt.NDArray[np.int64],
    query: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Score some rows of the vectors for one query in float64.

    Scores are rounded to 12 digits, so that equal vectors score equal in any row.
    """
    out = np.empty(len(regions))
    column = torch.from_numpy(query)
    for start in range(0, len(regions), _ROWS):
        chosen = torch.from_numpy(regions[start : start + _ROWS])
        # From half to double by way of float is faster, and exact too.
        part = vectors.index_select(0, chosen).float().double()
        out[start : start + len(chosen)] = torch.mv(part, column).numpy()
    if scales is not None:
        out *= scales[regions]
    return np.round(out, 12)


def argmax_per_image(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Position of the first largest value of each image; every image has a value.

    >>> argmax_per_image(np.array([1.0, 3.0, 3.0, 0.5]), np.array([3, 1]))
    array([1, 3])
    """
    starts = np.cumsum(counts) - counts
    if len(starts) == 0:
        return starts
    largest = np.repeat(np.maximum.reduceat(values, starts), counts)
    at_top = np.flatnonzero(values == largest)
    return np.asarray(at_top[np.searchsorted(at_top, starts)])

"""The best k images of each query by exact scores."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.storage.store import Store

# Rows scored at a time: 128 x 512 float64 are 0.5 MB, for the core's own cache.
_ROWS = 128


class TopK:
    """The best k images of C queries among those it was shown.

    Attributes:
        rows: (C, k) best images so far, best first, equal scores ordered by row; -1 for none.
        scores: (C, k) their float64 scores; -inf for none.
        shards: (C, k) shard of the matching region.
        regions: (C, k) its number in that shard.

    Args:
        store: Where the vectors are.
        queries: (C, D).
        k: How many images.
    """

    def __init__(self, store: Store, queries: npt.NDArray[np.float32], k: int) -> None:
        shape = (len(queries), k)
        self.rows = np.full(shape, -1, np.int64)
        self.scores = np.full(shape, -np.inf)
        self.shards = np.zeros(shape, np.int64)
        self.regions = np.zeros(shape, np.int64)
        self._store, self._queries = store, queries.astype(np.float64)

    def take(
        self,
        query: int,
        shards: npt.NDArray[np.integer[Any]],
        regions: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
    ) -> None:
        """Score some regions and keep their images where they are better.

        Args:
            query: Which query.
            shards: (P,) shard of each region; those of a shard side by side.
            regions: (P,) its number there.
            rows: (P,) its image; those of an image side by side, and no image shown before.
        """
        if len(rows) == 0:
            return
        ends = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist(), len(shards)]
        values = np.concatenate(
            [
                self._exact(int(shards[start]), regions[start:stop], query)
                for start, stop in itertools.pairwise(ends)
            ]
        )
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        picks = argmax_per_image(values, np.diff(starts, append=len(rows)))
        found = self.rows[query] >= 0
        scores = np.concatenate([self.scores[query, found], values[picks]])
        columns = (
            (self.rows, rows),
            (self.shards, shards),
            (self.regions, regions),
        )
        both = [np.concatenate([kept[query, found], new[picks]]) for kept, new in columns]
        order = np.lexsort((both[0], -scores))[: self.rows.shape[1]]
        self.scores[query, : len(order)] = scores[order]
        for (kept, _), column in zip(columns, both, strict=True):
            kept[query, : len(order)] = column[order]

    def put(self, queries: npt.NDArray[np.intp], other: TopK) -> None:
        """Take over what another one found for some of the queries."""
        for mine, its in (
            (self.rows, other.rows),
            (self.scores, other.scores),
            (self.shards, other.shards),
            (self.regions, other.regions),
        ):
            mine[queries] = its

    def _exact(
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
    """Score some rows of the vectors against one query in float64.

    Rounded to twelve digits, so that equal vectors score equal wherever they lie.
    """
    out = np.empty(len(regions))
    column = torch.from_numpy(query)
    for start in range(0, len(regions), _ROWS):
        chosen = torch.from_numpy(regions[start : start + _ROWS])
        # From half to double by way of float is faster, and as exact.
        part = vectors.index_select(0, chosen).float().double()
        out[start : start + len(chosen)] = torch.mv(part, column).numpy()
    if scales is not None:
        out *= scales[regions]
    return np.round(out, 12)


def argmax_per_image(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Position of the first largest value of each run; every run has one at least.

    >>> argmax_per_image(np.array([1.0, 3.0, 3.0, 0.5]), np.array([3, 1]))
    array([1, 3])
    """
    starts = np.cumsum(counts) - counts
    if len(starts) == 0:
        return starts
    largest = np.repeat(np.maximum.reduceat(values, starts), counts)
    at_top = np.flatnonzero(values == largest)
    return np.asarray(at_top[np.searchsorted(at_top, starts)])

"""Which images may be among the best k of each query, and which are."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from hardmine.index.blocks import Block, region_rows
from hardmine.index.product import exact_scores
from hardmine.index.store import Store


@dataclass(frozen=True)
class Pairs:
    """Regions that may be why an image answers a query; one entry a query and region.

    Attributes:
        queries: (P,) int32.
        shards: (P,) int32 shard of the region.
        regions: (P,) int64 its number in that shard.
        rows: (P,) int64 its image.
        tops: (P,) float32 inexact score of its image.
    """

    queries: npt.NDArray[np.int32]
    shards: npt.NDArray[np.int32]
    regions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tops: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.queries)


class Candidates:
    """The best k images of C queries, found from scores that may be off.

    An image that scores more than twice the error below the k-th is none of the best k. The
    others wait here, each with those of its regions that may be its maximum, until ``settle``
    scores them exactly.

    Attributes:
        rows: (C, k) best images so far, best first, equal scores ordered by row; -1 for none.
        scores: (C, k) their float64 scores; -inf for none.
        shards: (C, k) shard of the matching region.
        regions: (C, k) its number in that shard.

    Args:
        store: Where exact scores come from.
        queries: (C, D).
        k: How many images.
        absolute: (C,). A score s may be off by absolute + relative * |s|.
        relative: See ``absolute``.
        patience: Regions that may wait before they are settled.
    """

    def __init__(
        self,
        store: Store,
        queries: npt.NDArray[np.float32],
        k: int,
        *,
        absolute: npt.NDArray[np.float64],
        relative: float,
        patience: int,
    ) -> None:
        shape = (len(queries), k)
        self.rows = np.full(shape, -1, np.int64)
        self.scores = np.full(shape, -np.inf)
        self.shards = np.zeros(shape, np.int64)
        self.regions = np.zeros(shape, np.int64)
        self._store, self._k = store, k
        self._queries = queries.astype(np.float64)
        self._absolute, self._relative = absolute, relative
        self._patience = max(patience, 2 * k * len(queries))
        self._tops = np.zeros((len(queries), 0), np.float32)  # best inexact scores, at least k
        self._reach = np.full(len(queries), -np.inf)  # what an inexact score must be to come in
        self._waiting: list[Pairs] = []

    def offer(
        self,
        block: Block,
        images: npt.NDArray[np.float32],
        regions: npt.NDArray[np.float32],
    ) -> None:
        """Look at a block's inexact scores: (C, n) by image and (C, r) by region."""
        self._raise_reach(images)
        queries, places = np.nonzero((images >= self._reach[:, None]) & (images > -np.inf))
        if len(queries) == 0:
            return
        tops = images[queries, places]
        pairs, within = _near(block, regions, queries, places, self._below(tops, queries))
        self._waiting.append(
            Pairs(
                queries[pairs].astype(np.int32),
                np.full(len(pairs), block.shard, np.int32),
                within + (block.starts - block.offsets[:-1])[places[pairs]],
                block.rows[places[pairs]],
                tops[pairs],
            )
        )
        if sum(len(one) for one in self._waiting) > self._patience:
            self.settle()

    def settle(self) -> None:
        """Score exactly what waits."""
        if not self._waiting:
            return
        parts = [
            np.concatenate([getattr(one, column.name) for one in self._waiting])
            for column in fields(Pairs)
        ]
        self._waiting.clear()
        near = parts[-1] >= self._reach[parts[0]]
        # By query and shard, so that each is one product; the order within stays.
        order = np.flatnonzero(near)
        order = order[np.lexsort((parts[1][order], parts[0][order]))]
        pairs = Pairs(*(part[order] for part in parts))
        ends = np.flatnonzero(np.diff(pairs.queries) | np.diff(pairs.shards)) + 1
        bounds = [0, *ends.tolist(), len(pairs)] if len(pairs) else [0]
        for start, stop in itertools.pairwise(bounds):
            self._take(pairs, slice(start, stop))

    def _take(self, pairs: Pairs, chosen: slice) -> None:
        """Merge one shard's candidates of one query into its best."""
        query, number = int(pairs.queries[chosen.start]), int(pairs.shards[chosen.start])
        shard = self._store.shards[number]
        regions, rows = pairs.regions[chosen], pairs.rows[chosen]
        values = exact_scores(shard.vectors, shard.scales, regions, self._queries[query])
        starts = np.flatnonzero(np.diff(rows, prepend=-1))
        picks = first_best(values, np.diff(starts, append=len(rows)))
        found = self.rows[query] >= 0
        rows = np.concatenate([self.rows[query, found], rows[picks]])
        values = np.concatenate([self.scores[query, found], values[picks]])
        shards = np.concatenate([self.shards[query, found], np.full(len(picks), number)])
        regions = np.concatenate([self.regions[query, found], regions[picks]])
        order = np.lexsort((rows, -values))[: self._k]
        self.rows[query, : len(order)] = rows[order]
        self.scores[query, : len(order)] = values[order]
        self.shards[query, : len(order)] = shards[order]
        self.regions[query, : len(order)] = regions[order]

    def _raise_reach(self, images: npt.NDArray[np.float32]) -> None:
        self._tops = np.concatenate([self._tops, images], axis=1)
        count = self._tops.shape[1]
        if count >= self._k:
            self._tops = np.partition(self._tops, count - self._k, axis=1)[:, count - self._k :]
            worst = self._tops[:, 0]
            self._reach = self._below(worst, np.arange(len(worst)))

    def _below(
        self, scores: npt.NDArray[np.float32], queries: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """Inexact scores less twice their error: the least that may truly be as high."""
        wide = scores.astype(np.float64)
        # The hundredth covers that the lower score's own relative error may be a little larger.
        error = self._absolute[queries] + self._relative * np.abs(wide)
        return np.asarray(wide - 2.02 * error)


def _near(
    block: Block,
    regions: npt.NDArray[np.float32],
    queries: npt.NDArray[np.intp],
    places: npt.NDArray[np.intp],
    least: npt.NDArray[np.float64],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.int64]]:
    """Regions of image ``places[i]`` that reach ``least[i]`` for ``queries[i]``.

    Returns:
        For each of them i, and its number in the block; by ascending i.
    """
    # Never above the double it stands for, so that nothing is lost.
    floors = np.nextafter(least.astype(np.float32), np.float32(-np.inf))
    if block.regions_each:
        tiled = regions.reshape(len(regions), len(block), block.regions_each)
        pairs, column = np.nonzero(tiled[queries, places] >= floors[:, None])
        return pairs, block.offsets[places[pairs]] + column
    owners = np.repeat(np.arange(len(places)), np.diff(block.offsets)[places])
    within = region_rows(block.offsets, places)
    near = np.flatnonzero(regions[queries[owners], within] >= floors[owners])
    return owners[near], within[near]


def first_best(
    values: npt.NDArray[np.float64], counts: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Position of the first largest value of each run; every run has one at least.

    >>> first_best(np.array([1.0, 3.0, 3.0, 0.5]), np.array([3, 1]))
    array([1, 3])
    """
    starts = np.cumsum(counts) - counts
    if len(starts) == 0:
        return starts
    largest = np.repeat(np.maximum.reduceat(values, starts), counts)
    at_top = np.flatnonzero(values == largest)
    return np.asarray(at_top[np.searchsorted(at_top, starts)])

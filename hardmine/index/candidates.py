"""Which images may be among the best k of a query, and which are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.index.blocks import Block, region_rows
from hardmine.index.product import exact_scores
from hardmine.index.store import Store


@dataclass(frozen=True)
class _Waiting:
    """Regions of one shard that wait for their exact score, image by image."""

    shard: int
    rows: npt.NDArray[np.int64]
    regions: npt.NDArray[np.int64]
    tops: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


class Candidates:
    """The best k images of one query, found from scores that may be off.

    An image that scores more than twice the error below the k-th is none of the best k. The
    others wait here, each with those of its regions that may be its maximum, until ``settle``
    scores them exactly.

    Attributes:
        rows: Best images so far, best first, equal scores ordered by row.
        scores: Their float64 scores.
        shards: Shard of the matching region.
        regions: Its number in that shard.

    Args:
        store: Where exact scores come from.
        query: (D,).
        k: How many images.
        absolute: With ``relative``, how far a score s may be off: absolute + relative * |s|.
        relative: See ``absolute``.
        patience: Regions that may wait before they are settled.
    """

    def __init__(
        self,
        store: Store,
        query: npt.NDArray[np.float32],
        k: int,
        *,
        absolute: float,
        relative: float,
        patience: int,
    ) -> None:
        self.rows = np.zeros(0, np.int64)
        self.scores = np.zeros(0, np.float64)
        self.shards = np.zeros(0, np.int64)
        self.regions = np.zeros(0, np.int64)
        self._store, self._k = store, k
        self._query = query.astype(np.float64)
        self._absolute, self._relative = absolute, relative
        self._patience = max(patience, 2 * k)
        self._tops = np.zeros(0, np.float32)  # the best k inexact scores so far
        self._waiting: list[_Waiting] = []

    def offer(
        self,
        block: Block,
        images: npt.NDArray[np.float32],
        regions: npt.NDArray[np.float32],
    ) -> None:
        """Look at a block's inexact scores: (n,) by image and (r,) by region."""
        self._tops = _largest(np.concatenate([self._tops, images]), self._k)
        chosen = np.flatnonzero(images >= self._reach)
        chosen = chosen[images[chosen] > -np.inf]
        if len(chosen) == 0:
            return
        counts = np.diff(block.offsets)[chosen]
        within = region_rows(block.offsets, chosen)
        tops = np.repeat(images[chosen], counts)
        near = np.flatnonzero(regions[within] >= self._below(tops))
        self._waiting.append(
            _Waiting(
                block.shard,
                np.repeat(block.rows[chosen], counts)[near],
                within[near]
                + np.repeat(block.starts[chosen] - block.offsets[chosen], counts)[near],
                tops[near],
            )
        )
        if sum(len(one) for one in self._waiting) > self._patience:
            self.settle()

    def settle(self) -> None:
        """Score exactly what waits."""
        for one in self._waiting:
            kept = one.tops >= self._reach
            if not kept.any():
                continue
            shard = self._store.shards[one.shard]
            rows, regions = one.rows[kept], one.regions[kept]
            values = exact_scores(shard.vectors, shard.scales, regions, self._query)
            # The first largest region of each image; its regions stand side by side.
            starts = np.flatnonzero(np.diff(rows, prepend=-1))
            picks = first_best(values, np.diff(starts, append=len(rows)))
            self._merge(rows[picks], values[picks], regions[picks], one.shard)
        self._waiting.clear()

    @property
    def _reach(self) -> float:
        """What an inexact score must be to come in; -inf while there is room."""
        reach = -np.inf
        if len(self._tops) == self._k:
            reach = float(self._below(self._tops.min()))
        if len(self.scores) == self._k:
            floor = float(self.scores[-1])
            reach = max(reach, floor - 1.01 * (self._absolute + self._relative * abs(floor)))
        return reach

    def _below(self, scores: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """Inexact scores less twice their error, the least that can still equal them."""
        wide = scores.astype(np.float64)
        # The hundredth covers that the lower score's own relative error is a little larger.
        return np.asarray(wide - 2.02 * (self._absolute + self._relative * np.abs(wide)))

    def _merge(
        self,
        rows: npt.NDArray[np.int64],
        scores: npt.NDArray[np.float64],
        regions: npt.NDArray[np.int64],
        shard: int,
    ) -> None:
        rows = np.concatenate([self.rows, rows])
        scores = np.concatenate([self.scores, scores])
        order = np.lexsort((rows, -scores))[: self._k]
        self.shards = np.concatenate([self.shards, np.full(len(regions), shard)])[order]
        self.regions = np.concatenate([self.regions, regions])[order]
        self.rows, self.scores = rows[order], scores[order]


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


def _largest(values: npt.NDArray[np.float32], k: int) -> npt.NDArray[np.float32]:
    if len(values) <= k:
        return values
    return np.partition(values, len(values) - k)[len(values) - k :]

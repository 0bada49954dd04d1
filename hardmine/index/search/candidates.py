"""Which images may be among the best k of each query, told from scores that may be off."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block, max_by_image
from hardmine.index.search.kernels import bits_of, floats_of, positions_at_least
from hardmine.index.search.threads import run_in_threads
from hardmine.index.search.top_k import TopK


@dataclass(frozen=True)
class Candidates:
    """Regions that may be why an image answers a query; one entry a query and region.

    Attributes:
        queries: (P,) int16.
        shards: (P,) int32 shard of the region.
        regions: (P,) int64 its number in that shard.
        rows: (P,) int64 its image.
        tops: (P,) float32 inexact score of its image.
    """

    queries: npt.NDArray[np.int16]
    shards: npt.NDArray[np.int32]
    regions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    tops: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.queries)

    def where(self, chosen: npt.NDArray[np.intp] | slice) -> Candidates:
        """Some of the entries."""
        return Candidates(*(getattr(self, column.name)[chosen] for column in fields(self)))


class CandidateFilter:
    """Images of which each may be among the best k of a query.

    An image that scores more than twice the error below the k-th is none of the best k. The
    others wait here, each with those of its regions that may be its maximum, until ``settle``
    has them scored exactly.

    Args:
        best: Where they are scored.
        absolute: (C,). A score s may be off by absolute + relative * |s|.
        relative: See ``absolute``.
        patience: Regions that may wait before they are settled.
        guess: (C,) what the k-th best exact score will not fall below, presumably; -inf to
            presume nothing. ``proven`` tells whether it was so.
    """

    def __init__(
        self,
        best: TopK,
        *,
        absolute: npt.NDArray[np.float64],
        relative: float,
        patience: int,
        guess: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._best = best
        self._absolute, self._relative = absolute, relative
        count, self._k = best.scores.shape
        self._patience = max(patience, 2 * self._k * count)
        # What an inexact score must reach to come in, and what that is told from: the k best
        # inexact scores of each query, and those that came in since.
        if guess is None:
            guess = np.full(count, -np.inf, np.float32)
        self._guess = guess
        self._reach = self._below(guess, np.arange(count), 1)
        self._tops = [np.zeros(0, np.float32) for _ in range(count)]
        self._fresh: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
        self._waiting: list[Candidates] = []
        self._lock = threading.Lock()

    def offer(self, block: Block, scores: torch.Tensor) -> None:
        """Look at a block's inexact scores, (r, C); threads may offer blocks side by side."""
        regions, queries = self._hits(block, scores)
        if len(regions) == 0:
            return
        # By image, then query, then region.
        owners = block.owners[regions] * scores.shape[1] + queries
        owners, regions = np.divmod(np.sort(owners * len(scores) + regions), len(scores))
        places, queries = np.divmod(owners, scores.shape[1])
        values = floats_of(bits_of(scores)[regions, queries], scores.dtype)
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        counts = np.diff(starts, append=len(owners))
        tops = np.maximum.reduceat(values, starts)
        self._learn(queries[starts], tops)
        reach = self._reach[queries[starts]]
        least = np.maximum(self._below(tops, queries[starts], 2), reach)
        near = np.flatnonzero(values >= np.repeat(least, counts))
        if len(near) == 0:
            return
        tops, places = np.repeat(tops, counts)[near], places[near]
        found = Candidates(
            queries[near].astype(np.int16),
            np.full(len(near), block.shard, np.int32),
            regions[near] + (block.starts - block.offsets[:-1])[places],
            block.rows[places],
            tops,
        )
        with self._lock:
            self._waiting.append(found)
            if sum(len(one) for one in self._waiting) > self._patience:
                # This thread is one of several, each with its share of the cores.
                self._settle(threads=1)

    def _hits(
        self, block: Block, scores: torch.Tensor
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Region and query of all scores that may matter."""
        reach = self._reach.copy()
        if (reach > 0).all():
            return np.divmod(positions_at_least(scores, reach), len(reach))
        # Nearly all images may: only what may be an image's best region, then.
        wide = scores.float().numpy()
        tops = max_by_image(wide, block.offsets)
        least = np.maximum(reach, self._below(tops, np.arange(len(reach)), 2))
        return np.divmod(np.flatnonzero(wide >= least[block.owners]), len(reach))

    def settle(self) -> None:
        """Score exactly what waits."""
        with self._lock:
            self._settle(threads=len(self._reach))

    @property
    def proven(self) -> npt.NDArray[np.bool_]:
        """(C,) whether the best k are, once settled; False where the guess kept images out."""
        return np.asarray(self._best.scores[:, -1] >= self._guess)

    def _settle(self, threads: int) -> None:
        if not self._waiting:
            return
        # In the order in which they are stored, then by query.
        self._waiting.sort(key=lambda one: (one.shards[0], one.regions[0]))
        pairs = Candidates(
            *(
                np.concatenate([getattr(one, column.name) for one in self._waiting])
                for column in fields(Candidates)
            )
        )
        self._waiting.clear()
        near = np.flatnonzero(pairs.tops >= self._reach[pairs.queries])
        pairs = pairs.where(near[np.argsort(pairs.queries[near], kind="stable")])
        ends = np.searchsorted(pairs.queries, np.arange(len(self._reach) + 1))
        own = [pairs.where(slice(*bounds)) for bounds in itertools.pairwise(ends.tolist())]
        asked = [query for query, mine in enumerate(own) if len(mine)]

        def work(queries: Iterator[int]) -> None:
            for query in queries:
                self._take(query, own[query])

        run_in_threads(work, asked, most=min(threads, len(asked)))

    def _take(self, query: int, pairs: Candidates) -> None:
        """Score one query's: first the k that look best, then what may still be as good."""
        starts = np.flatnonzero(np.diff(pairs.rows, prepend=-1))
        tops, counts = pairs.tops[starts], np.diff(starts, append=len(pairs))
        left = np.ones(len(tops), bool)
        if len(tops) > self._k:
            first = tops >= np.partition(tops, -self._k)[-self._k]
            self._score(query, pairs.where(np.flatnonzero(np.repeat(first, counts))))
            left = ~first & (tops >= self._reach[query])
        self._score(query, pairs.where(np.flatnonzero(np.repeat(left, counts))))

    def _score(self, query: int, pairs: Candidates) -> None:
        self._best.take(query, pairs.shards, pairs.regions, pairs.rows)
        # An exact score is off by nothing, so this is once the error, not twice.
        worst = self._below(self._best.scores[query, -1:], np.array([query]), 1)
        self._reach[query] = max(self._reach[query], worst[0])

    def _learn(self, queries: npt.NDArray[np.int64], tops: npt.NDArray[np.float32]) -> None:
        """Take note of inexact scores of images; now and then, ask for more of the next."""
        with self._lock:
            self._fresh.append((queries, tops))
            if 2 * sum(len(one) for _, one in self._fresh) >= self._k * len(self._reach):
                self._raise_reach()

    def _raise_reach(self) -> None:
        queries, tops = (np.concatenate(part) for part in zip(*self._fresh, strict=True))
        self._fresh.clear()
        order = np.argsort(queries.astype(np.int16), kind="stable")
        ends = np.searchsorted(queries[order], np.arange(len(self._reach) + 1))
        tops = tops[order]
        for query, (start, stop) in enumerate(itertools.pairwise(ends.tolist())):
            mine = np.concatenate([self._tops[query], tops[start:stop]])
            if len(mine) >= self._k:
                mine = np.partition(mine, -self._k)[-self._k :]
                worst = self._below(mine[:1], np.array([query]), 2)
                self._reach[query] = max(self._reach[query], worst[0])
            self._tops[query] = mine

    def _below(
        self, scores: npt.NDArray[np.floating], queries: npt.NDArray[np.intp], times: int
    ) -> npt.NDArray[np.float32]:
        """Scores less some times their error, rounded down."""
        wide = scores.astype(np.float64)
        # The hundredth covers that the lower score's own relative error may be a little larger.
        error = 1.01 * (self._absolute[queries] + self._relative * np.abs(wide))
        return np.nextafter((wide - times * error).astype(np.float32), np.float32(-np.inf))

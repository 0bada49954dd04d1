"""Keeps the images that may be among the best k of each query, judging by inexact scores."""

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
from hardmine.index.search.top_k import TopK, runs

# Candidates that a thread scores at once; each time, memory is allocated for 2,048 vectors.
_RESCORED = 65_536


@dataclass(frozen=True)
class Candidates:
    """Pairs of a query and a region that may be the best region of its image for the query.

    Attributes:
        queries: (P,) int16 query.
        shards: (P,) int32 shard of the region.
        regions: (P,) int64 number of the region in that shard.
        rows: (P,) int64 image of the region.
        image_scores: (P,) float32 inexact score of the image.
    """

    queries: npt.NDArray[np.int16]
    shards: npt.NDArray[np.int32]
    regions: npt.NDArray[np.int64]
    rows: npt.NDArray[np.int64]
    image_scores: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.queries)

    def take(self, chosen: npt.NDArray[np.intp] | slice) -> Candidates:
        """Keep some pairs."""
        return Candidates(*(getattr(self, column.name)[chosen] for column in fields(self)))


class CandidateFilter:
    """Filters regions by inexact scores and has the candidates scored exactly.

    An image whose inexact score lies more than twice the error below the k-th best is not among
    the best k. Of every other image, the regions that may be its best one are kept until
    ``rescore`` scores them exactly. The threshold of each query rises with the scores seen.

    Args:
        best: Scores candidates exactly and keeps the best k.
        absolute: (C,). An inexact score s has an error of at most absolute + relative * |s|.
        relative: See ``absolute``.
        max_pending: Candidates to keep before they are scored exactly.
        guess: (C,) presumed lower bound of the k-th best exact score; -inf for no guess. A guess
            that was too high loses images: see ``complete``.
    """

    def __init__(
        self,
        best: TopK,
        *,
        absolute: npt.NDArray[np.float64],
        relative: float,
        max_pending: int,
        guess: npt.NDArray[np.float32] | None = None,
    ) -> None:
        self._best = best
        self._absolute, self._relative = absolute, relative
        count, self._k = best.scores.shape
        self._max_pending = max(max_pending, 2 * self._k * count)
        if guess is None:
            guess = np.full(count, -np.inf, np.float32)
        self._guess = guess
        # (C,) inexact score that a candidate must reach.
        self._thresholds = self._minus_error(guess, np.arange(count), 1)
        # The best k inexact image scores of each query, and those seen since they were updated.
        self._best_seen = [np.zeros(0, np.float32) for _ in range(count)]
        self._recent: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]] = []
        self._pending: list[Candidates] = []
        self._lock = threading.Lock()

    def offer(self, block: Block, scores: torch.Tensor) -> None:
        """Filter a block's inexact scores, (r, C). Threads may call this at the same time."""
        regions, queries = self._above_threshold(block, scores)
        if len(regions) == 0:
            return
        # Sort by image, then query, then region; a group is an image and a query.
        groups = block.owners[regions] * scores.shape[1] + queries
        groups, regions = np.divmod(np.sort(groups * len(scores) + regions), len(scores))
        images, queries = np.divmod(groups, scores.shape[1])
        values = floats_of(bits_of(scores)[regions, queries], scores.dtype)
        starts = np.flatnonzero(np.diff(groups, prepend=-1))
        counts = np.diff(starts, append=len(groups))
        image_scores = np.maximum.reduceat(values, starts)
        self._observe(queries[starts], image_scores)
        thresholds = np.maximum(
            self._minus_error(image_scores, queries[starts], 2), self._thresholds[queries[starts]]
        )
        chosen = np.flatnonzero(values >= np.repeat(thresholds, counts))
        if len(chosen) == 0:
            return
        images = images[chosen]
        candidates = Candidates(
            queries[chosen].astype(np.int16),
            block.shards[images].astype(np.int32),
            regions[chosen] + (block.starts - block.offsets[:-1])[images],
            block.rows[images],
            np.repeat(image_scores, counts)[chosen],
        )
        with self._lock:
            self._pending.append(candidates)
            if sum(map(len, self._pending)) > self._max_pending:
                # The scan already runs in several threads.
                self._rescore(max_threads=1)

    def _above_threshold(
        self, block: Block, scores: torch.Tensor
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Region and query of all scores that reach their query's threshold."""
        thresholds = self._thresholds.copy()
        if (thresholds > 0).all():
            return np.divmod(positions_at_least(scores, thresholds), len(thresholds))
        # Nearly all scores do: keep only those that may be the best of their image.
        wide = scores.float().numpy()
        image_scores = max_by_image(wide, block.offsets)
        least = self._minus_error(image_scores, np.arange(len(thresholds)), 2)
        least = np.maximum(thresholds, least)
        return np.divmod(np.flatnonzero(wide >= least[block.owners]), len(thresholds))

    def add(self, candidates: Candidates) -> None:
        """Keep candidates that were found in another way, by query, in the order of regions."""
        with self._lock:
            self._pending.append(candidates)

    def rescore(self) -> None:
        """Score all pending candidates exactly."""
        with self._lock:
            self._rescore(max_threads=len(self._thresholds))

    @property
    def complete(self) -> npt.NDArray[np.bool_]:
        """(C,) after ``rescore``: whether the best k are found; False if the guess was too high."""
        return np.asarray(self._best.scores[:, -1] >= self._guess)

    def _rescore(self, max_threads: int) -> None:
        if not self._pending:
            return
        # By query, and for each query in the order in which the regions are stored.
        self._pending.sort(key=lambda part: (part.shards[0], part.regions[0]))
        candidates = Candidates(
            *(
                np.concatenate([getattr(part, column.name) for part in self._pending])
                for column in fields(Candidates)
            )
        )
        self._pending.clear()
        near = np.flatnonzero(candidates.image_scores >= self._thresholds[candidates.queries])
        candidates = candidates.take(near[np.argsort(candidates.queries[near], kind="stable")])
        # Whole queries together, as many as are scored at once, but some for each thread.
        largest = min(_RESCORED, -(-len(candidates) // torch.get_num_threads()))
        bounds = [0]
        for start, stop in runs(candidates.queries):
            if stop - bounds[-1] > largest and start > bounds[-1]:
                bounds.append(start)
        bounds.append(len(candidates))
        parts = [candidates.take(slice(*pair)) for pair in itertools.pairwise(bounds)]

        def work(parts: Iterator[Candidates]) -> None:
            for part in parts:
                self._rescore_part(part)

        run_in_threads(work, parts, max_threads=min(max_threads, len(parts)))

    def _rescore_part(self, candidates: Candidates) -> None:
        """Score the k images that look best of each query, then those that still may be."""
        new_image = np.diff(candidates.rows, prepend=-1) != 0
        starts = np.flatnonzero(new_image | (np.diff(candidates.queries, prepend=-1) != 0))
        counts = np.diff(starts, append=len(candidates))
        queries, image_scores = candidates.queries[starts], candidates.image_scores[starts]
        first = np.ones(len(starts), bool)
        for start, stop in runs(queries):
            if stop - start > self._k:
                of_query = image_scores[start:stop]
                first[start:stop] = of_query >= np.partition(of_query, -self._k)[-self._k]
        self._score(candidates.take(np.flatnonzero(np.repeat(first, counts))))
        rest = ~first & (image_scores >= self._thresholds[queries])
        self._score(candidates.take(np.flatnonzero(np.repeat(rest, counts))))

    def _score(self, candidates: Candidates) -> None:
        """Score candidates, in the order of their queries, exactly; raise the thresholds."""
        values = self._best.score(candidates.queries, candidates.shards, candidates.regions)
        for start, stop in runs(candidates.queries):
            part, query = candidates.take(slice(start, stop)), int(candidates.queries[start])
            self._best.add(query, values[start:stop], part.shards, part.regions, part.rows)
            # The k-th best is exact, so only the other score has an error: once, not twice.
            kth_best = self._minus_error(self._best.scores[query, -1:], np.array([query]), 1)
            self._thresholds[query] = max(self._thresholds[query], kth_best[0])

    def _observe(
        self, queries: npt.NDArray[np.int64], image_scores: npt.NDArray[np.float32]
    ) -> None:
        """Note inexact scores of images; raise the thresholds once enough have been seen."""
        with self._lock:
            self._recent.append((queries, image_scores))
            if 2 * sum(len(scores) for _, scores in self._recent) >= self._k * len(
                self._thresholds
            ):
                self._raise_thresholds()

    def _raise_thresholds(self) -> None:
        queries, scores = (np.concatenate(part) for part in zip(*self._recent, strict=True))
        self._recent.clear()
        order = np.argsort(queries.astype(np.int16), kind="stable")
        ends = np.searchsorted(queries[order], np.arange(len(self._thresholds) + 1))
        scores = scores[order]
        for query, (start, stop) in enumerate(itertools.pairwise(ends.tolist())):
            best = np.concatenate([self._best_seen[query], scores[start:stop]])
            if len(best) >= self._k:
                best = np.partition(best, -self._k)[-self._k :]
                kth_best = self._minus_error(best[:1], np.array([query]), 2)
                self._thresholds[query] = max(self._thresholds[query], kth_best[0])
            self._best_seen[query] = best

    def _minus_error(
        self, scores: npt.NDArray[np.floating], queries: npt.NDArray[np.intp], times: int
    ) -> npt.NDArray[np.float32]:
        """Scores minus some times their largest error, rounded down."""
        wide = scores.astype(np.float64)
        # The lower score's own relative error may be a little larger: 1 % more covers it.
        error = 1.01 * (self._absolute[queries] + self._relative * np.abs(wide))
        return np.nextafter((wide - times * error).astype(np.float32), np.float32(-np.inf))

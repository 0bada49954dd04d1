"""Search that takes candidates from another library and scores them exactly."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.index.search.exact import ExactIndex
from hardmine.index.search.queries import check_k, check_queries
from hardmine.index.search.top_k import TopK, best_of_images
from hardmine.index.storage.store import Store
from hardmine.records import Hits


class ApproximateIndex(ExactIndex, ABC):
    """Finds regions near each query by ``_nearest``, and scores their images exactly.

    A library returns regions, not images: the number of regions grows until they are of k images
    for every query. Scores and boxes of the images found are exact, but images can be missed. All
    methods except ``search`` are exact, and so is a search with ``rows``.

    Args:
        store: The images and their regions.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._num_images = int(np.count_nonzero(store.counts))
        # Regions of images that are not removed.
        self._total = int(store.counts.sum())

    @abstractmethod
    def _nearest(self, queries: npt.NDArray[np.float32], depth: int) -> list[npt.NDArray[np.int64]]:
        """Image rows of about the ``depth`` best regions of each query; rows may repeat."""

    def _first_depth(self, k: int) -> int:
        """Number of regions to begin with."""
        return 2 * k

    @property
    def _max_depth(self) -> int:
        """Largest number of regions that can be asked for."""
        return self._total

    def search(self, vectors: Any, k: int, *, rows: npt.ArrayLike | None = None) -> Hits:
        """Find the k best images among the candidates, scored exactly.

        Args:
            vectors: (C, D), NumPy or torch.
            k: Number of images; no more than there are. With fewer images found, a row ends in
                -1 and -inf.
            rows: Search only these rows, exactly; all if None.
        """
        queries, k = check_queries(vectors, self.dim), check_k(k, len(self))
        if rows is not None or len(queries) == 0:
            return super().search(queries, k, rows=rows)
        best, lacking = TopK(self.store, queries.vectors, k), []
        wide = queries.vectors.astype(np.float64)
        for query, found in enumerate(self._candidates(queries.vectors, k)):
            if found is None:
                lacking.append(query)
                continue
            owners, values, shards, regions = best_of_images(self.store, wide[query], found)
            best.add(query, values, shards, regions, found[owners])
        scores = queries.restore(best.scores).astype(np.float32)
        hits = Hits(best.rows, scores, self._boxes(best))
        if lacking:
            exact = super().search(queries[lacking], k)
            hits.image_rows[lacking] = exact.image_rows
            hits.scores[lacking] = exact.scores
            hits.boxes[lacking] = exact.boxes
        return hits

    def _candidates(
        self, queries: npt.NDArray[np.float32], k: int
    ) -> list[npt.NDArray[np.int64] | None]:
        """Rows of at least k images per query; None for a query without as many."""
        found: list[npt.NDArray[np.int64] | None] = [None] * len(queries)
        enough = min(k, self._num_images)
        depth = min(self._first_depth(k), self._max_depth)
        pending = np.arange(len(queries))
        while len(pending) and self._total:
            nearest = self._nearest(queries[pending], depth)
            for query, rows in zip(pending.tolist(), map(np.unique, nearest), strict=True):
                if len(rows) >= enough:
                    found[query] = rows
            pending = np.array([query for query in pending.tolist() if found[query] is None], int)
            if depth == self._max_depth:
                break
            depth = min(2 * depth, self._max_depth)
        return found

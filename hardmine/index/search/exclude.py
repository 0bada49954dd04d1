"""Searches for one thing and not another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardmine.index.base import Index
from hardmine.records import Hits


def search_excluding(
    index: Index,
    vectors: npt.NDArray[np.float32],
    excluded: npt.NDArray[np.float32],
    k: int,
    *,
    rows: npt.ArrayLike | None = None,
) -> Hits:
    """Find the k best images of each query that score higher for it than for anything excluded.

    Scores of the images found are those of the query alone.

    Args:
        index: The index to search.
        vectors: (C, D).
        excluded: (U, D); with U = 0 this is a plain search.
        k: Number of images.
        rows: Search only these rows; all if None.
    """
    if len(excluded) == 0 or len(vectors) == 0:
        return index.search(vectors, k, rows=rows)
    allowed = np.empty((len(vectors), len(index)), bool)
    for part, scores in index.iter_scores(np.concatenate([vectors, excluded])):
        allowed[:, part] = scores[: len(vectors)] > scores[len(vectors) :].max(axis=0)
    if rows is not None:
        in_rows = np.zeros(len(index), bool)
        in_rows[np.asarray(rows, np.int64)] = True
        allowed &= in_rows
    hits_of_query = [
        index.search(vector[None], k, rows=np.flatnonzero(mask))
        for vector, mask in zip(vectors, allowed, strict=True)
    ]
    return Hits(
        np.concatenate([hits.image_rows for hits in hits_of_query]),
        np.concatenate([hits.scores for hits in hits_of_query]),
        np.concatenate([hits.boxes for hits in hits_of_query]),
    )

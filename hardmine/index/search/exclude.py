"""Searching for one thing and not another."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardmine.index.base import Index
from hardmine.records import Hits


def search_excluding(
    index: Index,
    vectors: npt.NDArray[np.float32],
    unwanted: npt.NDArray[np.float32],
    k: int,
    *,
    rows: npt.ArrayLike | None = None,
) -> Hits:
    """Find the k best images that answer each query better than anything unwanted.

    An image is left out for a query where it scores at least as high for one of the unwanted
    vectors. The scores of the others stay what they are.

    Args:
        index: Where to search.
        vectors: (C, D).
        unwanted: (U, D); none changes nothing.
        k: K.
        rows: Search among these images only.
    """
    if len(unwanted) == 0 or len(vectors) == 0:
        return index.search(vectors, k, rows=rows)
    wins = np.empty((len(vectors), len(index)), bool)
    for part, scores in index.iter_scores(np.concatenate([vectors, unwanted])):
        wins[:, part] = scores[: len(vectors)] > scores[len(vectors) :].max(axis=0)
    if rows is not None:
        among = np.zeros(len(index), bool)
        among[np.asarray(rows, np.int64)] = True
        wins &= among
    single = [
        index.search(vector[None], k, rows=np.flatnonzero(mask))
        for vector, mask in zip(vectors, wins, strict=True)
    ]
    return Hits(
        np.concatenate([hits.image_rows for hits in single]),
        np.concatenate([hits.scores for hits in single]),
        np.concatenate([hits.boxes for hits in single]),
    )

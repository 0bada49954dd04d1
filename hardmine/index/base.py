"""The interface of an index, which mining, evaluation and the command line use."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hardmine.records import Hits


class Index(Protocol):
    """Regions of N images that can be searched by text or image vectors.

    An image row is a position in ``ids``, from 0 to N - 1. Removed images have no row. Rows change
    only when the index on disk is changed.
    """

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def encoder_fingerprint(self) -> str:
        """Fingerprint of the encoder that made the vectors."""
        ...

    @property
    def clusters(self) -> str:
        """The clustering spec, e.g. ``"kmeans:10+whole"``."""
        ...

    @property
    def ids(self) -> npt.NDArray[Any]:
        """(N,) image ids of the data set: int64, or str."""
        ...

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        ...

    @property
    def paths(self) -> Sequence[str]:
        """N paths below ``root``."""
        ...

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width of each image in pixels."""
        ...

    @property
    def num_regions(self) -> int:
        """Number of regions of all images."""
        ...

    def __len__(self) -> int:
        """N."""
        ...

    def rows_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of images by id; -1 where the index lacks one."""
        ...

    def search(
        self,
        vectors: Any,
        k: int,
        *,
        rows: npt.ArrayLike | None = None,
    ) -> Hits:
        """Find the k best images for each of C vectors, among ``rows`` only if given.

        Equal scores are ordered by row. Of an index of fewer than k images all are found: the hits
        are (C, min(k, N)). Takes NumPy or torch, returns NumPy.
        """
        ...

    def scores(self, vectors: Any) -> npt.NDArray[np.float32]:
        """Score every image: (C, N), the maximum over each image's regions.

        Processes on the same machine with the same number of threads get the same bits.
        """
        ...

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Yield the scores of every image in chunks: image rows, and scores (C, n)."""
        ...

    def mean_vectors(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float16]:
        """Mean of each image's region vectors, at unit length: (N, D); zeros without regions.

        Of (K,) image rows, where given: (K, D).
        """
        ...

    def best_regions(
        self, vectors: Any, rows: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find the best region of given images: scores (C, K) and normalised xyxy boxes (C, K, 4).

        Args:
            vectors: (C, D).
            rows: (C, K) image rows, -1 for none (score -inf, box zeros).
        """
        ...

    def region_vectors(self, rows: npt.ArrayLike, boxes: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """Find the vector of the region that fits each box best: (M, D), zeros where there is none.

        Args:
            rows: (M,) image rows, -1 for none.
            boxes: (M, 4) normalised xyxy.
        """
        ...

"""The index seam: what the loop, the evaluation and the command line ask of an index."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hardmine.records import Hits


class Index(Protocol):
    """Regions of N images, answering text (or image) vectors.

    An image row is a position in ``ids``: removed images have none, so rows run from 0 to N - 1
    without holes and change only when the index itself is changed.
    """

    @property
    def dim(self) -> int:
        """D."""
        ...

    @property
    def encoder_fingerprint(self) -> str:
        """The encoder that made the vectors."""
        ...

    @property
    def clusters(self) -> str:
        """The clustering spec, e.g. ``"kmeans:10+whole"``."""
        ...

    @property
    def ids(self) -> npt.NDArray[Any]:
        """(N,) image ids as the data set has them: int64, or str."""
        ...

    @property
    def root(self) -> Path:
        """Folder that image paths are relative to."""
        ...

    @property
    def paths(self) -> tuple[str, ...]:
        """N paths below ``root``."""
        ...

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width of each image in pixels."""
        ...

    @property
    def num_regions(self) -> int:
        """Regions of all images together."""
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
        """Find the k best images for each of C vectors, optionally among ``rows`` only.

        Equal scores are ordered by row. NumPy or torch in, NumPy out.
        """
        ...

    def scores(self, vectors: Any) -> npt.NDArray[np.float32]:
        """Score every image: (C, N), the maximum over each image's regions."""
        ...

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Score every image in bounded memory: (image rows, (C, n)) chunk by chunk."""
        ...

    def best_regions(
        self, vectors: Any, rows: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Where each image matched: scores (C, K) and normalised xyxy boxes (C, K, 4).

        Args:
            vectors: (C, D).
            rows: (C, K) image rows, -1 for none (score -inf, box zeros).
        """
        ...

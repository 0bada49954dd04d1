"""The exact index: an image scores the maximum over its regions, and every image is scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError
from hardmine.index.search.blocks import iter_blocks, region_rows
from hardmine.index.search.product import MAX_NORM, can_multiply
from hardmine.index.search.scan import find_best, score_images
from hardmine.index.search.top_k import argmax_per_image, exact_scores
from hardmine.index.storage.store import Shard, Store
from hardmine.records import Hits
from hardmine.records import rows_of as find_rows

# Queries searched for at a time.
_QUERIES = 256
# And where all images are scored: the more, the fewer times a vector is read and converted.
_ALL_QUERIES = 2048
# Scores of images returned at a time: 2 M float32 are 8 MB.
_SCORES = 2_000_000
# Regions averaged at a time: 64 k float32 vectors of 512 are 128 MB.
_MEAN_REGIONS = 1 << 16


class ExactIndex:
    """Searches all regions of all images; hits equal those of a brute force in float64.

    A search reads the stored vectors block by block. Beside them it needs about 80 MB, and 20 MB
    for each of at most 8 threads, for any N and C. Memory-mapped vectors may be larger than
    memory.

    Args:
        store: The images and their regions.
        device: Where the matrix products run: None or "cpu", or "cuda".
        dtype: What a search multiplies in before it scores the candidates exactly; ``search_dtype``
            chooses for this machine if None. The hits are the same in any dtype.
    """

    def __init__(
        self,
        store: Store,
        device: str | torch.device | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        self.store = store
        for shard in store.shards:
            # Made here, as the warnings filter that it sets is not safe in threads.
            _ = shard.tensor
        self.device = torch.device(device or "cpu")
        if dtype is not None and not can_multiply(dtype, self.device):
            raise InputError(
                f"torch {torch.__version__} cannot multiply in {dtype} on {self.device}; leave "
                "dtype out to use one that it can"
            )
        self.dtype = dtype

    @property
    def dim(self) -> int:
        """D."""
        return self.store.dim

    @property
    def encoder_fingerprint(self) -> str:
        """The encoder that made the vectors."""
        return self.store.encoder_fingerprint

    @property
    def clusters(self) -> str:
        """The clustering spec."""
        return self.store.clusters

    @property
    def ids(self) -> npt.NDArray[Any]:
        """(N,) image ids."""
        return self.store.ids

    @property
    def root(self) -> Path:
        """Folder that ``paths`` are relative to."""
        return self.store.root

    @property
    def paths(self) -> tuple[str, ...]:
        """N paths below ``root``."""
        return self.store.paths

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width of each image in pixels."""
        return self.store.sizes

    @property
    def num_regions(self) -> int:
        """Regions of all images together, removed ones included."""
        return self.store.num_regions

    def __len__(self) -> int:
        """N."""
        return len(self.store)

    def rows_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of images by id; -1 where the index lacks one."""
        return find_rows(self.ids, ids)

    def search(self, vectors: Any, k: int, *, rows: npt.ArrayLike | None = None) -> Hits:
        """Find the k best images for each of C vectors.

        Args:
            vectors: (C, D), NumPy or torch.
            k: Number of images. With fewer images found, a row ends in -1 and -inf.
            rows: Search only these rows; all if None.

        Returns:
            Best first, equal scores ordered by row. Scores are computed from the stored vectors
            in float64 and rounded to float32.
        """
        queries = self._checked(vectors)
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        checked_rows = None if rows is None else self._checked_rows(rows)
        hits = Hits(
            np.full((len(queries), k), -1, np.int64),
            np.full((len(queries), k), -np.inf, np.float32),
            np.zeros((len(queries), k, 4), np.float32),
        )
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            stop = start + len(part)
            best = find_best(
                self.store, part, k, checked_rows, dtype=self.dtype, device=self.device
            )
            hits.image_rows[start:stop] = best.rows
            hits.scores[start:stop] = best.scores
            for number, shard in enumerate(self.store.shards):
                in_shard = (best.shards == number) & (best.rows >= 0)
                hits.boxes[start:stop][in_shard] = shard.boxes[best.regions[in_shard]]
        return hits

    def scores(self, vectors: Any) -> npt.NDArray[np.float32]:
        """Score every image: (C, N), in float32; -inf for an image without regions."""
        queries = self._checked(vectors)
        out = np.empty((len(queries), len(self)), np.float32)
        for rows, part in self.iter_scores(queries):
            out[:, rows] = part
        return out

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Score every image in bounded memory: (image rows, (C, n)), rows ascending."""
        queries = self._checked(vectors)
        starts = range(0, len(queries), _ALL_QUERIES)
        parts = [slice(first, first + _ALL_QUERIES) for first in starts]
        images = max(_SCORES // max(len(queries), 1), 1)
        for start in range(0, len(self), images):
            rows = np.arange(start, min(start + images, len(self)))
            out = np.full((len(queries), len(rows)), -np.inf, np.float32)
            for part in parts:
                score_images(self.store, queries[part], rows, out[part], device=self.device)
            yield slice(start, start + len(rows)), out

    def mean_vectors(self) -> npt.NDArray[np.float16]:
        """Mean of each image's region vectors, at unit length: (N, D); zeros without regions."""
        means = np.zeros((len(self), self.dim), np.float16)
        for block in iter_blocks(self.store, _MEAN_REGIONS):
            vectors = block.vectors.float().numpy()
            if block.scales is not None:
                vectors *= block.scales[:, None]
            owned = np.flatnonzero(np.diff(block.offsets))
            if len(owned):
                sums = np.add.reduceat(vectors, block.offsets[:-1][owned], axis=0)
                lengths = np.linalg.norm(sums, axis=1, keepdims=True)
                means[block.rows[owned]] = sums / lengths.clip(min=1e-12)
        return means

    def best_regions(
        self, vectors: Any, rows: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find the best region of given images: scores (C, K) and normalised xyxy boxes (C, K, 4).

        Args:
            vectors: (C, D).
            rows: (C, K) image rows, -1 for none (score -inf, box zeros).
        """
        queries = self._checked(vectors)
        image_rows = np.asarray(rows, np.int64)
        if image_rows.ndim != 2 or len(image_rows) != len(queries):
            raise InputError(
                f"rows must be ({len(queries)}, K), K rows per vector, got {image_rows.shape}"
            )
        self._checked_rows(image_rows[image_rows >= 0])
        scores = np.full(image_rows.shape, -np.inf, np.float32)
        boxes = np.zeros((*image_rows.shape, 4), np.float32)
        shard_of, slot_of = self.store.locations
        # Row -1 reads the appended last element: no shard, no regions.
        shards = np.append(shard_of, -1)[image_rows]
        has_regions = np.append(self.store.counts, 0)[image_rows] > 0
        for line, query in enumerate(queries.astype(np.float64)):
            for number in np.unique(shards[line, has_regions[line]]):
                columns = np.flatnonzero(has_regions[line] & (shards[line] == number))
                shard, slots = self.store.shards[number], slot_of[image_rows[line, columns]]
                regions = region_rows(shard.offsets, slots)
                values = exact_scores(shard.tensor, shard.scales, regions, query)
                best = argmax_per_image(values, np.diff(shard.offsets)[slots])
                scores[line, columns] = values[best]
                boxes[line, columns] = shard.boxes[regions[best]]
        return scores, boxes

    def _checked(self, vectors: Any) -> npt.NDArray[np.float32]:
        if isinstance(vectors, torch.Tensor):
            vectors = vectors.detach().to("cpu", torch.float32).numpy()
        queries = np.ascontiguousarray(vectors, np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dim:
            raise InputError(
                f"vectors must be (C, {self.dim}), the index's dimension, got {queries.shape}; "
                "were they made by another encoder?"
            )
        if not np.isfinite(queries).all():
            raise InputError("vectors must be finite, got NaN or infinity")
        return queries

    def _checked_rows(self, rows: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Unique rows, ascending."""
        given = np.asarray(rows)
        if given.size and given.dtype.kind not in "iu":
            raise InputError(f"rows must be whole numbers, got {given.dtype}")
        unique = np.unique(given.astype(np.int64))
        if len(unique) and (unique[0] < 0 or unique[-1] >= len(self)):
            raise InputError(
                f"rows must lie in 0 to {len(self) - 1}, got {unique[0]} to {unique[-1]}; "
                "rows_of returns -1 for an id that the index lacks"
            )
        return unique


def index_from_regions(
    vectors: npt.ArrayLike,
    offsets: npt.ArrayLike,
    boxes: npt.ArrayLike | None = None,
    mass: npt.ArrayLike | None = None,
    *,
    ids: npt.ArrayLike,
    root: str | Path = "",
    paths: Sequence[str] | None = None,
    sizes: npt.ArrayLike | None = None,
    encoder_fingerprint: str = "",
    clusters: str = "none",
    device: str | torch.device | None = None,
) -> ExactIndex:
    """Make an index of arrays in memory, without a folder on disk.

    Args:
        vectors: (R, D) unit vectors, kept as float16.
        offsets: (N + 1,): image i owns the regions ``offsets[i]`` to ``offsets[i + 1]``.
        boxes: (R, 4) xyxy as shares of the image's width and height; the whole image if None.
        mass: (R,) share of the image's patches; 1 if None.
        ids: (N,) unique image ids.
        root: Folder that ``paths`` are relative to.
        paths: N paths; the ids as text if None.
        sizes: (N, 2) height and width in pixels; 0 if None.
        encoder_fingerprint: The encoder that made the vectors.
        clusters: The clustering spec.
        device: Where searches run.

    Raises:
        InputError: If the shapes do not fit or the vectors are not unit vectors.
    """
    given = np.asarray(vectors)
    if given.ndim != 2:
        raise InputError(f"vectors must be (R, D), got {given.shape}")
    norms = np.linalg.norm(given.astype(np.float32, copy=False), axis=1)
    if len(norms) and not (norms <= MAX_NORM).all():
        raise InputError(f"vectors must be unit vectors, got norms up to {norms.max():.3g}")
    names = np.asarray(ids)
    count, regions = len(names), len(given)
    whole = np.tile(np.array([0, 0, 1, 1], np.float32), (regions, 1))
    shard = Shard(
        np.ascontiguousarray(given, np.float16),
        None,
        np.asarray(offsets, np.int64),
        whole if boxes is None else np.asarray(boxes, np.float32),
        np.ones(regions, np.float32) if mass is None else np.asarray(mass, np.float32),
        np.arange(count),
    )
    store = Store(
        Path(root),
        names,
        tuple(str(name) for name in names.tolist()) if paths is None else tuple(paths),
        np.zeros((count, 2), np.int32) if sizes is None else np.asarray(sizes, np.int32),
        given.shape[1],
        encoder_fingerprint,
        clusters,
        (shard,),
    )
    return ExactIndex(store, device)

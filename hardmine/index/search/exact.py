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
from hardmine.index.search.on_device import DeviceSearch
from hardmine.index.search.product import MAX_NORM, can_multiply
from hardmine.index.search.queries import check_k, check_queries, check_rows
from hardmine.index.search.scan import find_best, score_images
from hardmine.index.search.top_k import TopK, argmax_per_image, best_of_images, boxes_of
from hardmine.index.storage.store import Shard, Store
from hardmine.processor import require_device
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
        device: Where the matrix products run: None or "cpu", or "cuda"; see ``DeviceSearch``.
        dtype: What a search on the CPU multiplies in before it scores the candidates exactly;
            ``search_dtype`` chooses for this machine if None. The hits are the same in any dtype.
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
        self.device = require_device(device or "cpu")
        on_cpu = self.device.type == "cpu"
        self._on_device = None if on_cpu else DeviceSearch(store, self.device)
        if dtype is not None and not on_cpu:
            raise InputError(f"dtype is for the CPU; leave it out on {self.device}")
        if dtype is not None and not can_multiply(dtype):
            raise InputError(
                f"torch {torch.__version__} cannot multiply in {dtype} on {self.device}; leave "
                "dtype out to use one that it can"
            )
        if dtype == torch.int8 and any(shard.scales is None for shard in store.shards):
            raise InputError(f"float16 vectors are not multiplied in {dtype}; leave dtype out")
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
    def paths(self) -> Sequence[str]:
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
            vectors: (C, D), NumPy or torch, of any length.
            k: Number of images; no more than there are. With fewer images found, a row ends in
                -1 and -inf.
            rows: Search only these rows; all if None.

        Returns:
            Best first, equal scores ordered by row. Scores are computed from the stored vectors
            in float64, to 12 digits of the query's length, and rounded to float32.
        """
        image_rows, scores, boxes = self.best(vectors, k, rows)
        return Hits(image_rows, scores.astype(np.float32), boxes)

    def best(
        self, vectors: Any, k: int, rows: npt.ArrayLike | None = None
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float32]]:
        """Image rows, scores and boxes that ``search`` finds; scores in float64.

        The best images of several indexes can be told by them: float32 would make some equal.
        """
        queries = check_queries(vectors, self.dim)
        k = check_k(k, len(self))
        checked_rows = None if rows is None else check_rows(rows, len(self))
        image_rows = np.full((len(queries), k), -1, np.int64)
        scores = np.full((len(queries), k), -np.inf)
        boxes = np.zeros((len(queries), k, 4), np.float32)
        for start in range(0, len(queries), _QUERIES):
            part = queries[start : start + _QUERIES]
            stop = start + len(part)
            if self._on_device is not None:
                top = self._on_device.find_best(part.vectors, k, checked_rows)
            else:
                top = find_best(self.store, part.vectors, k, checked_rows, dtype=self.dtype)
            image_rows[start:stop] = top.rows
            scores[start:stop] = part.restore(top.scores)
            boxes[start:stop] = self._boxes(top)
        return image_rows, scores, boxes

    def scores(self, vectors: Any) -> npt.NDArray[np.float32]:
        """Score every image: (C, N), in float32; -inf for an image without regions."""
        queries = check_queries(vectors, self.dim)
        out = np.empty((len(queries), len(self)), np.float32)
        for rows, part in self.iter_scores(queries):
            out[:, rows] = part
        return out

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Score every image in bounded memory: (image rows, (C, n)), rows ascending."""
        queries = check_queries(vectors, self.dim)
        images = max(_SCORES // max(len(queries), 1), 1)
        for start in range(0, len(self), images):
            stop = min(start + images, len(self))
            yield slice(start, stop), self.scores_between(queries, start, stop)

    def scores_between(self, vectors: Any, start: int, stop: int) -> npt.NDArray[np.float32]:
        """Score the images of consecutive rows: (C, stop - start)."""
        queries, rows = check_queries(vectors, self.dim), np.arange(start, stop)
        out = np.full((len(queries), len(rows)), -np.inf, np.float32)
        for first in range(0, len(queries), _ALL_QUERIES):
            part = slice(first, first + _ALL_QUERIES)
            if self._on_device is not None:
                self._on_device.score_images(queries.vectors[part], rows, out[part])
            else:
                score_images(self.store, queries.vectors[part], rows, out[part])
        return queries.restore(out)

    def mean_vectors(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float16]:
        """Mean of each image's region vectors, at unit length: (N, D); zeros without regions.

        Of (K,) image rows, where given: (K, D).
        """
        chosen = None if rows is None else check_rows(rows, len(self))
        means = np.zeros((len(self) if chosen is None else len(chosen), self.dim), np.float16)
        for block in iter_blocks(self.store, _MEAN_REGIONS, chosen):
            vectors = block.vectors.float().numpy()
            if block.scales is not None:
                vectors *= block.scales[:, None]
            owned = np.flatnonzero(np.diff(block.offsets))
            if len(owned):
                sums = np.add.reduceat(vectors, block.offsets[:-1][owned], axis=0)
                lengths = np.linalg.norm(sums, axis=1, keepdims=True)
                found = block.rows[owned]
                places = found if chosen is None else np.searchsorted(chosen, found)
                means[places] = sums / lengths.clip(min=1e-12)
        return means if chosen is None else means[np.searchsorted(chosen, np.asarray(rows))]

    def best_regions(
        self, vectors: Any, rows: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find the best region of given images: scores (C, K) and normalised xyxy boxes (C, K, 4).

        Args:
            vectors: (C, D).
            rows: (C, K) image rows, -1 for none (score -inf, box zeros).
        """
        queries = check_queries(vectors, self.dim)
        image_rows = np.asarray(rows, np.int64)
        if image_rows.ndim != 2 or len(image_rows) != len(queries):
            raise InputError(
                f"rows must be ({len(queries)}, K), K rows per vector, got {image_rows.shape}"
            )
        check_rows(image_rows[image_rows >= 0], len(self))
        scores = np.full(image_rows.shape, -np.inf, np.float32)
        boxes = np.zeros((*image_rows.shape, 4), np.float32)
        for line, query in enumerate(queries.vectors.astype(np.float64)):
            columns = np.flatnonzero(image_rows[line] >= 0)
            owners, values, shards, regions = best_of_images(
                self.store, query, image_rows[line, columns]
            )
            scores[line, columns[owners]] = values
            boxes[line, columns[owners]] = boxes_of(self.store, shards, regions)
        return queries.restore(scores), boxes

    def region_vectors(self, rows: npt.ArrayLike, boxes: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """Find the region that fits each box best, by intersection over union: (M, D) vectors.

        Args:
            rows: (M,) image rows, -1 for none.
            boxes: (M, 4) xyxy, as shares of the image's width and height.

        Returns:
            Zeros for row -1 and for an image without regions.
        """
        image_rows, places = np.asarray(rows, np.int64), np.asarray(boxes, np.float64)
        if places.shape != (len(image_rows), 4):
            raise InputError(
                f"boxes must be ({len(image_rows)}, 4), one for each row, got {places.shape}"
            )
        check_rows(image_rows[image_rows >= 0], len(self))
        vectors = np.zeros((len(image_rows), self.dim), np.float16)
        shard_of, slot_of = self.store.locations
        # Row -1 reads the appended last element: no shard, no regions.
        shards = np.append(shard_of, -1)[image_rows]
        has_regions = np.append(self.store.counts, 0)[image_rows] > 0
        for number in np.unique(shards[has_regions]):
            chosen = np.flatnonzero(has_regions & (shards == number))
            shard, slots = self.store.shards[number], slot_of[image_rows[chosen]]
            counts, regions = np.diff(shard.offsets)[slots], region_rows(shard.offsets, slots)
            fits = _paired_iou(np.repeat(places[chosen], counts, axis=0), shard.boxes[regions])
            best = regions[argmax_per_image(fits, counts)]
            found = shard.vectors[best]
            if shard.scales is not None:
                found = found * shard.scales[best, None]
            vectors[chosen] = found
        return vectors

    def _boxes(self, best: TopK) -> npt.NDArray[np.float32]:
        """(C, k, 4) boxes of the best regions."""
        found = best.rows >= 0
        boxes = np.zeros((*best.rows.shape, 4), np.float32)
        boxes[found] = boxes_of(self.store, best.shards[found], best.regions[found])
        return boxes


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


def _paired_iou(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(K,) intersection over union of K pairs of boxes; 0 where both are empty."""
    second = second.astype(np.float64)
    low, high = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    shared = np.prod((high - low).clip(0), axis=1)
    sizes = [np.prod((boxes[:, 2:] - boxes[:, :2]).clip(0), axis=1) for boxes in (first, second)]
    return np.asarray(shared / (sizes[0] + sizes[1] - shared).clip(min=1e-12))

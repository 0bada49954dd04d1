"""Asks several processes, each of which holds some of the images, and merges their answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.index.search.queries import check_k, check_queries, check_rows
from hardmine.index.sharded.holder import Held
from hardmine.index.storage.columns import TextColumn
from hardmine.index.storage.joined import common_root, join_digests, join_ids
from hardmine.records import Hits
from hardmine.records import rows_of as find_rows

# Scores that all processes together return at a time: 8 M float32 are 32 MB.
_SCORES = 8_000_000


class Worker(Protocol):
    """The way to a process with a ``Holder``."""

    def ask(self, question: str, *arguments: Any) -> Callable[[], Any]:
        """Send a question for ``Holder.answer``; the function returned waits for the answer."""
        ...

    def close(self) -> None:
        """End what was started for the process."""
        ...


class ShardedIndex:
    """An index of images that several processes hold, one after the other.

    Rows, scores and boxes of a search equal those of one index over all images to the bit: each
    process gives its best images with scores in float64, and the best of those are the best of all.

    Args:
        workers: The processes.
        held: What each of them holds.
        folder: The index.
        root: Folder of the images; the one that holds all of them if None.

    Attributes:
        folder: The index.
        digest: Hash of all that the processes hold, the same as of the index opened by one.
    """

    def __init__(
        self,
        workers: Sequence[Worker],
        held: Sequence[Held],
        folder: Path,
        *,
        root: Path | None = None,
    ) -> None:
        self._workers = tuple(workers)
        self.folder = folder
        self.digest = join_digests([part for one in held for part in one.parts])
        names = [f"process {number}" for number in range(len(held))]
        self._ids = join_ids([one.ids for one in held], names)
        self._root, ways = common_root([one.root for one in held], root)
        self._paths = TextColumn.joined([one.paths for one in held], ways)
        self._sizes = np.concatenate([one.sizes for one in held])
        self._first = held[0]
        self._num_regions = sum(one.num_regions for one in held)
        # Rows of worker i are those from starts[i] to starts[i + 1].
        self._starts = np.cumsum([0, *(len(one.ids) for one in held)])

    @property
    def dim(self) -> int:
        """D."""
        return self._first.dim

    @property
    def encoder_fingerprint(self) -> str:
        """The encoder that made the vectors."""
        return self._first.encoder_fingerprint

    @property
    def clusters(self) -> str:
        """The clustering spec."""
        return self._first.clusters

    @property
    def ids(self) -> npt.NDArray[Any]:
        """(N,) image ids."""
        return self._ids

    @property
    def root(self) -> Path:
        """Folder that ``paths`` are relative to."""
        return self._root

    @property
    def paths(self) -> Sequence[str]:
        """N paths below ``root``."""
        return self._paths

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width of each image in pixels."""
        return self._sizes

    @property
    def num_regions(self) -> int:
        """Regions of all images together, removed ones included."""
        return self._num_regions

    def __len__(self) -> int:
        """N."""
        return len(self._ids)

    def close(self) -> None:
        """End the processes' work for this index; it answers nothing afterwards."""
        for worker in self._workers:
            worker.close()

    def rows_of(self, ids: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Rows of images by id; -1 where the index lacks one."""
        return find_rows(self.ids, ids)

    def search(self, vectors: Any, k: int, *, rows: npt.ArrayLike | None = None) -> Hits:
        """Find the k best images for each of C vectors, as ``ExactIndex.search`` does."""
        given = _checked(vectors, self.dim)
        k = check_k(k, len(self))
        wanted = None if rows is None else self._local(check_rows(rows, len(self)))
        asked = [
            (number, (given, k, None if wanted is None else wanted[number]))
            for number in range(len(self._workers))
            if wanted is None or len(wanted[number])
        ]
        merged: tuple[npt.NDArray[Any], ...] = (
            np.full((len(given), k), -1, np.int64),
            np.full((len(given), k), -np.inf),
            np.zeros((len(given), k, 4), np.float32),
        )
        for number, found in self._ask("best", asked):
            found_rows = np.where(found[0] >= 0, found[0] + self._starts[number], -1)
            columns = [
                np.concatenate(pair, axis=1)
                for pair in zip(merged, (found_rows, *found[1:]), strict=True)
            ]
            # Best first, equal scores by row; places without an image have -inf and come last.
            order = np.lexsort((columns[0], -columns[1]))[:, :k]
            for whole, column in zip(merged, columns, strict=True):
                places = order if column.ndim == 2 else order[:, :, None]
                whole[:] = np.take_along_axis(column, places, axis=1)
        return Hits(merged[0], merged[1].astype(np.float32), merged[2])

    def scores(self, vectors: Any) -> npt.NDArray[np.float32]:
        """Score every image: (C, N), in float32; -inf for an image without regions."""
        given = _checked(vectors, self.dim)
        out = np.empty((len(given), len(self)), np.float32)
        for rows, part in self.iter_scores(given):
            out[:, rows] = part
        return out

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
        """Score every image in bounded memory: (image rows, (C, n)), of each process in turn."""
        given = _checked(vectors, self.dim)
        images = max(_SCORES // (max(len(given), 1) * len(self._workers)), 1)
        counts = np.diff(self._starts).tolist()
        for start in range(0, max(counts), images):
            asked = [
                (number, (given, start, min(start + images, count)))
                for number, count in enumerate(counts)
                if start < count
            ]
            for number, part in self._ask("scores_between", asked):
                first = int(self._starts[number]) + start
                yield slice(first, first + part.shape[1]), part

    def mean_vectors(self, rows: npt.ArrayLike | None = None) -> npt.NDArray[np.float16]:
        """Mean of each image's region vectors, at unit length: (N, D); zeros without regions.

        Of (K,) image rows, where given: (K, D).
        """
        chosen = None if rows is None else check_rows(rows, len(self))
        wanted = [None] * len(self._workers) if chosen is None else self._local(chosen)
        asked = [(number, (local,)) for number, local in enumerate(wanted)]
        means = np.concatenate([part for _, part in self._ask("mean_vectors", asked)])
        return means if chosen is None else means[np.searchsorted(chosen, np.asarray(rows))]

    def best_regions(
        self, vectors: Any, rows: npt.ArrayLike
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Find the best region of given images; see ``ExactIndex.best_regions``."""
        given, image_rows = _checked(vectors, self.dim), np.asarray(rows, np.int64)
        if image_rows.ndim != 2 or len(image_rows) != len(given):
            raise InputError(
                f"rows must be ({len(given)}, K), K rows per vector, got {image_rows.shape}"
            )
        scores = np.full(image_rows.shape, -np.inf, np.float32)
        boxes = np.zeros((*image_rows.shape, 4), np.float32)
        held = self._held_rows(image_rows)
        asked = [(number, (given, local)) for number, local in held]
        for number, (values, places) in self._ask("best_regions", asked):
            here = dict(held)[number] >= 0
            scores[here], boxes[here] = values[here], places[here]
        return scores, boxes

    def region_vectors(self, rows: npt.ArrayLike, boxes: npt.ArrayLike) -> npt.NDArray[np.float16]:
        """Find the region that fits each box best; see ``ExactIndex.region_vectors``."""
        image_rows, places = np.asarray(rows, np.int64), np.asarray(boxes, np.float64)
        if places.shape != (len(image_rows), 4):
            raise InputError(
                f"boxes must be ({len(image_rows)}, 4), one for each row, got {places.shape}"
            )
        vectors = np.zeros((len(image_rows), self.dim), np.float16)
        held = self._held_rows(image_rows)
        asked = [(number, (local[local >= 0], places[local >= 0])) for number, local in held]
        for number, found in self._ask("region_vectors", asked):
            vectors[dict(held)[number] >= 0] = found
        return vectors

    def _ask(
        self, question: str, asked: Sequence[tuple[int, tuple[Any, ...]]]
    ) -> Iterator[tuple[int, Any]]:
        """Ask some workers at the same time: number and answer of each, all waited for."""
        waits = [
            (number, self._workers[number].ask(question, *arguments)) for number, arguments in asked
        ]
        return iter([(number, wait()) for number, wait in waits])

    def _local(self, rows: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
        """Ascending rows by worker, in the worker's own numbers."""
        bounds = np.searchsorted(rows, self._starts)
        return [
            rows[first:stop] - start
            for first, stop, start in zip(bounds[:-1], bounds[1:], self._starts, strict=False)
        ]

    def _held_rows(self, rows: npt.NDArray[np.int64]) -> list[tuple[int, npt.NDArray[np.int64]]]:
        """For each worker that holds some of the rows: its own numbers of them, -1 for others."""
        check_rows(rows[rows >= 0], len(self))
        local = []
        for number, start in enumerate(self._starts[:-1]):
            here = (rows >= max(start, 0)) & (rows < self._starts[number + 1])
            if here.any():
                local.append((number, np.where(here, rows - start, -1)))
        return local


def _checked(vectors: Any, dim: int) -> npt.NDArray[Any]:
    """The vectors as an array that can be sent, once they are known to be sound."""
    check_queries(vectors, dim)
    return np.asarray(vectors.detach().cpu() if hasattr(vectors, "detach") else vectors)

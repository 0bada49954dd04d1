"""Similarity of texts to every training image, cached from round to round."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import IndexMismatch, InputError
from hardmine.index.base import Index
from hardmine.mining.queries import embed_queries
from hardmine.mining.score_files import ScoreFiles
from hardmine.records import rows_of

Row: TypeAlias = npt.NDArray[np.floating[Any]]  # (N,) scores of one query

_MAX_BYTES = 512 * 2**20
# Of files of scores: at least 4 GiB, and a quarter of what float16 vectors take.
_MIN_DISK_BYTES = 4 * 2**30
_DISK_SHARE = 1 / 4
_BLOCK_SHARE = 1 / 8  # of the memory for rows: scores on their way to files
_MIN_REGIONS = 100_000  # of an index whose scores are worth files: fewer are scored in a second
_Key = tuple[tuple[str, ...], bool]  # phrases, and whether they are embedded without templates


def _require_same_encoder(index: Index, encoder: Encoder, what: str) -> None:
    """Refuse an index of another encoder, whose vectors mean something else."""
    if index.encoder_fingerprint not in ("", encoder.fingerprint):
        raise IndexMismatch(
            f"{what} was made with encoder {index.encoder_fingerprint!r}, these queries would be "
            f"made with {encoder.fingerprint!r}; load the same encoder or rebuild"
        )


def require_comparable(index: Index, scores: ScoreCache) -> None:
    """Refuse a validation index whose regions differ from those of the training index.

    Regions made in another way would look like a difference between the images.
    """
    _require_same_encoder(index, scores.encoder, "the validation index")
    if index.clusters != scores.index.clusters:
        raise IndexMismatch(
            f"the validation index was made with clusters {index.clusters!r}, the training index "
            f"with {scores.index.clusters!r}; build both with the same"
        )


def mean_vectors_of(index: Index, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
    """(K, D) mean region vectors of K images by their index rows; zeros for row -1."""
    vectors = np.zeros((len(rows), index.dim), np.float16)
    known = rows >= 0
    vectors[known] = index.mean_vectors(rows[known])
    return vectors


def _score_files(index: Index, dtype: type[np.floating[Any]]) -> ScoreFiles | None:
    """Files for the scores of an index; None if it is in memory alone, or quickly scored."""
    # An index over several processes has no store: it knows its folder itself.
    kept: Any = getattr(index, "store", index)
    folder, digest = getattr(kept, "folder", None), getattr(kept, "digest", "")
    if folder is None or not digest or index.num_regions < _MIN_REGIONS:
        return None
    max_bytes = max(_MIN_DISK_BYTES, int(_DISK_SHARE * 2 * index.num_regions * index.dim))
    return ScoreFiles(folder, digest, num_images=len(index), dtype=dtype, max_bytes=max_bytes)


class ScoreCache:
    """Scores of queries in the order of the sampler's rows.

    Each query is scored against the index once; later rounds reuse its row. When memory runs out,
    rows that the current request does not use are dropped. Where the index lies on disk and is
    large, the next run reads the scores from files beside it.

    Scores are float32, or float16 where one row for each class would not fit into ``max_bytes``.
    Which of the two depends on the sizes alone, never on what is cached, so that every run and
    every replay sees the same values.

    Args:
        index: Holds the regions of the images.
        encoder: Makes the text vectors; must be the one that made the index.
        ids: (N,) image ids in the order of the sampler's rows; one that the index lacks scores
            -inf.
        num_classes: Classes that rows are kept for.
        templates: Put around each phrase.
        max_bytes: Memory for cached rows.
    """

    def __init__(
        self,
        index: Index,
        encoder: Encoder,
        ids: npt.ArrayLike,
        *,
        num_classes: int,
        templates: str | Sequence[str] = "short",
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        _require_same_encoder(index, encoder, "the index")
        self.index = index
        self.encoder = encoder
        self.templates = templates
        self.max_bytes = max_bytes
        self._ids = np.asarray(ids)
        fits = num_classes * len(self._ids) * 4 <= max_bytes
        self.dtype: type[np.floating[Any]] = np.float32 if fits else np.float16
        self._cached: dict[_Key, Row] = {}
        self._vectors: dict[_Key, npt.NDArray[np.float32]] = {}
        self._files: ScoreFiles | None = None
        self._rows = np.zeros(0, np.int64)
        self._in_order = False
        self._means: npt.NDArray[np.float16] | None = None
        self._version: object = None

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def version(self) -> object:
        """Another object whenever the index has changed."""
        return getattr(self.index, "store", self.index.ids)

    def each(self, phrases: Sequence[tuple[str, ...]]) -> Iterator[npt.NDArray[np.float32]]:
        """Score queries one after the other, in memory for ``max_bytes`` however many they are.

        Where their scores do not fit, one pass over the index writes them to files. Without files,
        and over several processes, each group of queries that fits is a pass.
        """
        self._follow_index()
        row_bytes = max(len(self), len(self.index), 1) * np.dtype(self.dtype).itemsize
        together = max(self.max_bytes // row_bytes, 1)
        if len(phrases) > together:
            self._score_to_files(phrases)
        for start in range(0, len(phrases), together):
            for row in self.rows(phrases[start : start + together]):
                yield _converted(row, np.float32)

    def rows(self, phrases: Sequence[tuple[str, ...]], *, bare: bool = False) -> list[Row]:
        """Score each query's phrases: Q rows of (N,), -inf where an image is not in the index.

        Args:
            phrases: Phrases of each of Q queries.
            bare: Whether to embed them without templates.
        """
        self._follow_index()
        keys = [(texts, bare) for texts in phrases]
        missing = [key for key in dict.fromkeys(keys) if key not in self._cached]
        if missing:
            self._make_room(keys, len(missing))
            scored = self._score([texts for texts, _ in missing], bare)
            self._cached.update(zip(missing, map(self._arranged, scored), strict=True))
        return [self._cached[key] for key in keys]

    def mean_vectors(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.float16]:
        """(K, D) mean region vectors of K images; zeros where an image is not in the index.

        Those of all images are kept if they fit into ``max_bytes``, and else computed at each call.
        """
        self._follow_index()
        if len(self) * self.index.dim * np.dtype(np.float16).itemsize > self.max_bytes:
            return mean_vectors_of(self.index, self._rows[rows])
        if self._means is None:
            self._means = mean_vectors_of(self.index, self._rows)
        return self._means[rows]

    def _score(self, phrases: Sequence[tuple[str, ...]], bare: bool) -> list[Row]:
        """Scores in the order of the index: from its files, or else computed."""
        vectors = self._embed(phrases, bare)
        found = [None if self._files is None else self._files.read(vector) for vector in vectors]
        new = [place for place, row in enumerate(found) if row is None]
        if new:
            out = np.empty((len(new), len(self.index)), self.dtype)
            for images, scores in self.index.iter_scores(vectors[new]):
                out[:, images] = _converted(scores, self.dtype)
            if self._files is not None:
                self._files.write(vectors[new], [out])
            for place, row in zip(new, out, strict=True):
                found[place] = row
        return [row for row in found if row is not None]

    def _score_to_files(self, phrases: Sequence[tuple[str, ...]]) -> None:
        """Score queries in one pass over the index, if its files have room for them."""
        # Several processes answer by turns, and the images of a file must come in order.
        if self._files is None or not hasattr(self.index, "store"):
            return
        uncached = [texts for texts in dict.fromkeys(phrases) if (texts, False) not in self._cached]
        if not uncached:
            return
        vectors = self._embed(uncached, bare=False)
        if self._files.have_room(len(vectors)) and (new := self._files.lack(vectors)).any():
            self._files.write(vectors[new], self._blocks(vectors[new]))

    def _blocks(self, vectors: npt.NDArray[np.float32]) -> Iterator[Row]:
        """(Q, n) scores of the images, in the order of the index, in a share of ``max_bytes``."""
        num_images, size = len(self.index), np.dtype(self.dtype).itemsize
        images = max(int(_BLOCK_SHARE * self.max_bytes) // (len(vectors) * size), 1)
        parts: list[Row] = []
        waiting = 0
        for rows, scores in self.index.iter_scores(vectors):
            parts.append(_converted(scores, self.dtype))
            waiting += scores.shape[1]
            if waiting >= images or rows.stop == num_images:
                yield np.concatenate(parts, axis=1)
                parts, waiting = [], 0

    def _embed(self, phrases: Sequence[tuple[str, ...]], bare: bool) -> npt.NDArray[np.float32]:
        """(Q, D) vectors; each query is embedded once, as the last bits depend on the batch."""
        new = [texts for texts in dict.fromkeys(phrases) if (texts, bare) not in self._vectors]
        if new:
            templates = ["{}"] if bare else self.templates
            vectors = embed_queries(self.encoder, new, templates=templates)
            self._vectors.update(zip([(texts, bare) for texts in new], vectors, strict=True))
        return np.stack([self._vectors[texts, bare] for texts in phrases])

    def _arranged(self, row: Row) -> Row:
        """Scores in the order of the sampler's rows, which may repeat or leave out images."""
        return row if self._in_order else np.append(row, row.dtype.type(-np.inf))[self._rows]

    def _follow_index(self) -> None:
        """Drop everything if the index has changed."""
        if self.version is self._version:
            return
        self._version = self.version
        self._cached.clear()
        self._means = None
        self._rows = rows_of(self.index.ids, self._ids)
        self._in_order = np.array_equal(self._rows, np.arange(len(self.index)))
        self._files = _score_files(self.index, self.dtype)
        if len(self) and not (self._rows >= 0).any():
            raise InputError(
                f"no image id of the training set is in the index (e.g. {self._ids[0]!r} against "
                f"{self.index.ids[0] if len(self.index) else 'none'!r}); "
                "was the index built on another split?"
            )

    def _make_room(self, keys: Sequence[_Key], num_new: int) -> None:
        used = sum(row.nbytes for row in self._cached.values())
        if used + num_new * len(self) * np.dtype(self.dtype).itemsize > self.max_bytes:
            needed = set(keys)
            self._cached = {key: row for key, row in self._cached.items() if key in needed}


def _converted(scores: npt.NDArray[Any], dtype: type[np.floating[Any]]) -> npt.NDArray[Any]:
    """Scores in another type; of half precision, torch converts ten times as fast as NumPy."""
    if scores.dtype == dtype:
        return scores
    import torch

    return np.asarray(torch.from_numpy(scores).to(getattr(torch, dtype.__name__)).numpy())

"""Scores of texts against every image of the training loop, kept from round to round."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import IndexMismatch, InputError
from hardmine.index.base import Index
from hardmine.mining.queries import embed_queries
from hardmine.records import rows_of

_MAX_BYTES = 512 * 2**20
_Key = tuple[tuple[str, ...], bool]  # phrases, and whether they stand without templates


class ScoreCache:
    """Answers queries from an index in the order of the training loop's images.

    A query is read from the index once: between rounds only new ones cost a pass over it. Rows of
    scores are float32, or float16 where those of one request exceed ``max_bytes`` (LVIS on a large
    set); rows that a request does not ask for are dropped when space runs out.

    Args:
        index: Holds the images' regions.
        encoder: Makes the text vectors; must be the one that made the index.
        ids: (N,) image ids in the order of the sampler's rows; one that the index lacks scores
            -inf.
        templates: Put around each phrase.
        max_bytes: MinerState for kept scores.
    """

    def __init__(
        self,
        index: Index,
        encoder: Encoder,
        ids: npt.ArrayLike,
        *,
        templates: str | Sequence[str] = "short",
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        if index.encoder_fingerprint not in ("", encoder.fingerprint):
            raise IndexMismatch(
                f"the index was made with encoder {index.encoder_fingerprint!r}, these queries "
                f"would be made with {encoder.fingerprint!r}; load the same encoder or rebuild"
            )
        self.index = index
        self.encoder = encoder
        self.templates = templates
        self.max_bytes = max_bytes
        self._ids = np.asarray(ids)
        self._kept: dict[_Key, npt.NDArray[np.floating[Any]]] = {}
        self._rows = np.zeros(0, np.int64)
        self._state: object = None

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def state(self) -> object:
        """Another object whenever the index has changed."""
        return getattr(self.index, "store", self.index.ids)

    def rows(
        self, names: Sequence[tuple[str, ...]], *, bare: bool = False
    ) -> list[npt.NDArray[np.floating[Any]]]:
        """Score each query's phrases: Q rows of (N,), -inf where an image is not in the index.

        Args:
            names: Phrases of each query.
            bare: Whether to ask them as they are, without templates.
        """
        self._follow_index()
        keys = [(texts, bare) for texts in names]
        missing = [key for key in dict.fromkeys(keys) if key not in self._kept]
        if missing:
            self._make_room(keys, len(missing))
            asked = [texts for texts, _ in missing]
            self._kept.update(zip(missing, self._read(asked, bare), strict=True))
        return [self._kept[key] for key in keys]

    def _read(self, names: Sequence[tuple[str, ...]], bare: bool) -> npt.NDArray[np.floating[Any]]:
        templates = ["{}"] if bare else self.templates
        vectors = embed_queries(self.encoder, names, templates=templates)
        wide = len(names) * len(self) * 4 <= self.max_bytes
        out = np.full((len(names), len(self)), -np.inf, np.float32 if wide else np.float16)
        # A loop may draw an image from several rows (RepeatDataset), or not at all.
        order = np.argsort(self._rows, kind="stable")
        for images, scores in self.index.iter_scores(vectors):
            first, end = np.searchsorted(self._rows, [images.start, images.stop], sorter=order)
            places = order[first:end]
            out[:, places] = scores[:, self._rows[places] - images.start]
        return out

    def _follow_index(self) -> None:
        """Forget everything when the index has changed under us."""
        if self.state is self._state:
            return
        self._state = self.state
        self._kept.clear()
        self._rows = rows_of(self.index.ids, self._ids)
        if len(self) and not (self._rows >= 0).any():
            raise InputError(
                f"no image id of the training set is in the index (e.g. {self._ids[0]!r} against "
                f"{self.index.ids[0] if len(self.index) else 'none'!r}); "
                "was the index built on another split?"
            )

    def _make_room(self, keys: Sequence[_Key], coming: int) -> None:
        used = sum(row.nbytes for row in self._kept.values())
        if used + coming * len(self) * 4 > self.max_bytes:
            wanted = set(keys)
            self._kept = {key: row for key, row in self._kept.items() if key in wanted}

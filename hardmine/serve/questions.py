"""Questions to an index and their answers: every image, ranked, kept for the next page."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Generic, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Meta

from hardmine.index.base import Index

Floats = npt.NDArray[np.float32]
V = TypeVar("V")

Text = Annotated[str, Meta(min_length=1, max_length=300, pattern=r"\S")]
Share = Annotated[float, Meta(ge=0, le=1)]
Key = Annotated[str, Meta(pattern="^[0-9a-f]{16}$")]
Row = Annotated[int, Meta(ge=0, lt=2**40)]


class Region(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of an indexed image; ``box`` is xyxy as shares of its width and height."""

    row: Row
    box: tuple[Share, Share, Share, Share]


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What to look for. ``match``: "any" ranks by the best of several things, "all" by the worst.

    Attributes:
        texts: Such as "a bicycle at night".
        without: An image is left out that scores at least as high for one of these.
        match: How several things are combined.
        regions: Parts of indexed images to search by.
        pictures: Keys of uploaded pictures to search by.
    """

    texts: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    without: Annotated[tuple[Text, ...], Meta(max_length=16)] = ()
    match: Literal["any", "all"] = "any"
    regions: Annotated[tuple[Region, ...], Meta(max_length=4)] = ()
    pictures: Annotated[tuple[Key, ...], Meta(max_length=4)] = ()

    @property
    def key(self) -> str:
        """The same for the same question."""
        return content_key(msgspec.json.encode(self))

    @property
    def names(self) -> tuple[str, ...]:
        """A name for each thing searched for, in the order of the answer's vectors."""
        regions = tuple("region" for _ in self.regions)
        return (*self.texts, *regions, *("picture" for _ in self.pictures))


def content_key(content: bytes) -> str:
    """16 hexadecimal digits of a hash."""
    return hashlib.sha256(content).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """An index ranked by a question.

    Attributes:
        question: As it was asked.
        vectors: (C, D) of what is looked for.
        excluded: (U, D) of what is not.
        scores: (N,) of each image; -inf where it has no region or is left out.
        seconds: Time that the search took.
    """

    question: Question
    vectors: Floats
    excluded: Floats
    scores: Floats
    seconds: float

    @cached_property
    def order(self) -> npt.NDArray[np.int32]:
        """Rows of the images found, best first, equal scores by row."""
        order = np.argsort(-self.scores, kind="stable")
        return order[: np.count_nonzero(np.isfinite(self.scores))].astype(np.int32)


def rank(index: Index, question: Question, vectors: Floats, excluded: Floats) -> Floats:
    """Score every image for a question: (N,); -inf where it is left out.

    Args:
        index: To be searched.
        question: Says how several vectors are combined.
        vectors: (C, D) with C at least 1.
        excluded: (U, D).
    """
    combine = np.max if question.match == "any" else np.min
    scores = np.full(len(index), -np.inf, np.float32)
    for rows, part in index.iter_scores(np.concatenate([vectors, excluded])):
        best = combine(part[: len(vectors)], axis=0)
        if len(excluded):
            best[best <= part[len(vectors) :].max(axis=0)] = -np.inf
        scores[rows] = best
    return scores


class Kept(Generic[V]):
    """The values used last, up to a number; safe between threads.

    Args:
        limit: Number of values.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._values: OrderedDict[str, V] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def get(self, key: str) -> V | None:
        """A value, or None if it was never put or is dropped."""
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
            return self._values.get(key)

    def put(self, key: str, value: V) -> None:
        """Keep a value, and drop the one used longest ago if there are too many."""
        with self._lock:
            self._values[key] = value
            self._values.move_to_end(key)
            while len(self._values) > self.limit:
                self._values.popitem(last=False)

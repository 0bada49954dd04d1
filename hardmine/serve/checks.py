"""Suspects and confusers, checked one by one; decisions in a file that survives a kill."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.history.rounds import append_line
from hardmine.index.base import Index
from hardmine.mining.checked import CheckRecord, Decision, read_checks
from hardmine.report.mining_preview import MiningPreview


class Decisions:
    """The answers so far, in memory and as lines of a file.

    Args:
        file: Read if it exists; made by the first answer.

    Raises:
        InputError: If a line, other than an incomplete last one, is not an answer.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._lock = threading.Lock()
        self._last = {one.key: one for one in read_checks(file)}

    def of(self, image_id: int | str, class_name: str) -> Decision:
        """What was answered last; "open" if nothing was."""
        found = self._last.get((image_id, class_name))
        return "open" if found is None else found.decision

    def add(self, mined: MinedImage, decision: Decision) -> None:
        """Write an answer; it is on disk when this returns."""
        record = CheckRecord(
            datetime.now(timezone.utc).isoformat(timespec="seconds"),
            mined.image_id,
            mined.class_name,
            mined.kind,
            round(mined.score, 4),
            mined.box,
            decision,
        )
        with self._lock:
            try:
                append_line(self.file, msgspec.to_builtins(record))
            except OSError as error:
                raise InputError(
                    f"{self.file}: cannot be written: {error}; give another folder with --keep"
                ) from error
            self._last[record.key] = record

    def counts(self) -> dict[str, int]:
        """Number of images and classes by their last answer."""
        return dict(Counter(one.decision for one in self._last.values()))

    def missing(self, index: Index) -> tuple[MinedImage, ...]:
        """The labels found missing.

        Args:
            index: Has the images' paths and sizes; images that it lacks are left out.
        """
        missing = [one for one in self._last.values() if one.decision == "missing"]
        rows = index.rows_of([one.image_id for one in missing]).tolist()
        return tuple(
            MinedImage(
                image_id=one.image_id,
                path=index.paths[row],
                class_name=one.class_name,
                kind=one.kind,
                score=one.score,
                box=one.box,
                size=(int(index.sizes[row, 0]), int(index.sizes[row, 1])),
                weight=1.0,
            )
            for one, row in zip(missing, rows, strict=True)
            if row >= 0
        )


@dataclass(frozen=True)
class Queue:
    """What there is to check, in order: suspects, then confusers, of weaker classes first."""

    suspects: tuple[MinedImage, ...]
    confusers: tuple[MinedImage, ...]

    @classmethod
    def of(cls, mining: MiningPreview) -> Queue:
        """Take what mining found; of an image and class that is both, the suspect."""
        suspected = {(one.image_id, one.class_name) for one in mining.suspects}
        confusers = tuple(
            one for one in mining.confusers if (one.image_id, one.class_name) not in suspected
        )
        return cls(mining.suspects, confusers)

    def of_kind(self, kind: str) -> tuple[MinedImage, ...]:
        """Those of a kind."""
        return self.suspects if kind == "suspect" else self.confusers

    def find(self, image_id: int | str, class_name: str) -> MinedImage:
        """The entry of an image and class.

        Raises:
            InputError: If there is none.
        """
        for one in (*self.suspects, *self.confusers):
            if (one.image_id, one.class_name) == (image_id, class_name):
                return one
        raise InputError(f"image {image_id!r} and class {class_name!r} are not to be checked")


class ChecksQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which checks to list; ``decision`` "open" are those not answered yet."""

    kind: Literal["suspect", "confuser"] = "suspect"
    decision: Literal["any", "missing", "other", "skip", "open"] = "any"
    offset: Annotated[int, Meta(ge=0, le=10**9)] = 0
    limit: Annotated[int, Meta(ge=1, le=500)] = 100


class CheckAnswer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A person's answer about an image and class of the list."""

    image_id: int | Annotated[str, Meta(max_length=1000)]
    class_name: Annotated[str, Meta(max_length=300)]
    decision: Decision

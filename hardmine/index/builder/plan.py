"""What a build set out to do and how far it came, kept in the folder so that it can go on."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.errors import IndexMismatch
from hardmine.index.storage.files import explained, sync_folder, write_durably
from hardmine.index.storage.image_table import BROKEN, FileFacts
from hardmine.index.storage.manifest import WORK, ShardRecord

_PLAN = "plan.json"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which images go into which shards, and how; equal plans give equal shards.

    Attributes:
        base: Generation of the index that is added to; -1 for none.
        encoder: The encoder's fingerprint.
        clusters: The canonical clustering spec.
        seed: Of the clustering.
        dtype: How vectors are stored.
        images: Fingerprint of the images to encode, in order.
        proposals: Fingerprint of their boxes, for the clustering "boxes"; else empty.
        count: How many they are.
        shard_size: Images a shard; the last may have fewer.
        first_number: Number of the first shard.
    """

    base: int
    encoder: str
    clusters: str
    seed: int
    dtype: str
    images: str
    proposals: str
    count: int
    shard_size: int
    first_number: int

    @property
    def numbers(self) -> range:
        """The shards to make."""
        shards = -(-self.count // self.shard_size)
        return range(self.first_number, self.first_number + shards)

    def rows(self, number: int) -> range:
        """Which of the images to encode a shard holds."""
        start = (number - self.first_number) * self.shard_size
        return range(start, min(start + self.shard_size, self.count))


class FinishedShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Says that a shard is whole: its files, and the facts of each of its images in order."""

    shard: ShardRecord
    facts: tuple[FileFacts, ...]


class BuildFolder:
    """The folder inside an index where a build keeps its plan, finished_shards and unfinished files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / WORK

    def plan(self) -> Plan | None:
        """The plan of the build that was broken off here; None if there is none to read."""
        try:
            return msgspec.json.decode((self.path / _PLAN).read_bytes(), type=Plan)
        except (FileNotFoundError, NotADirectoryError, msgspec.MsgspecError, UnicodeDecodeError):
            return None

    def begin(self, plan: Plan) -> None:
        """Start anew, whatever was here."""
        self.clear()
        with explained(f"write {self.path}"):
            for path in (self.folder / "shards", self.path):
                path.mkdir(exist_ok=True)
            sync_folder(self.folder)
        write_durably(
            self.folder, f"{WORK}/{_PLAN}", [msgspec.json.encode(plan)], scratch=self.path
        )

    def go_on(self) -> None:
        """Remove what the builder before us left half-written."""
        for path in self.path.glob("*.part"):
            path.unlink(missing_ok=True)

    def clear(self) -> None:
        """Remove everything but the index itself."""
        with explained(f"clear {self.path}"):
            if self.path.exists():
                # The plan last: until then the rest is known for what it is.
                for path in self.path.iterdir():
                    if path.name != _PLAN:
                        path.unlink()
                shutil.rmtree(self.path)

    def save(self, finished: FinishedShard) -> None:
        """Note that a shard is whole; its files must have been written before."""
        name = f"{WORK}/{finished.shard.number:05d}.json"
        write_durably(self.folder, name, [msgspec.json.encode(finished)], scratch=self.path)

    def finished(self, number: int) -> FinishedShard | None:
        """A shard's finished; None if the shard is not whole."""
        try:
            content = (self.path / f"{number:05d}.json").read_bytes()
            finished = msgspec.json.decode(content, type=FinishedShard)
            whole = all(
                (self.folder / record.name).stat().st_size == record.bytes
                for record in (finished.shard.vectors, finished.shard.layout)
            )
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            return None
        return finished if whole else None

    def pending(self, plan: Plan) -> list[int]:
        """Shards still to make."""
        return [number for number in plan.numbers if self.finished(number) is None]

    def finished_shards(self, plan: Plan) -> list[FinishedShard]:
        """The finished_shards of a finished plan, in order."""
        found = [self.finished(number) for number in plan.numbers]
        missing = [number for number, finished in enumerate(found) if finished is None]
        assert not missing, f"shards {missing} are not whole"
        return [finished for finished in found if finished is not None]


def places(
    finished_shards: Sequence[FinishedShard],
) -> tuple[tuple[FileFacts, ...], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Facts, shard and slot of each image of a finished plan, in the plan's order."""
    facts = tuple(fact for finished in finished_shards for fact in finished.facts)
    shards = np.full(len(facts), BROKEN, np.int32)
    slots = np.full(len(facts), BROKEN, np.int32)
    start = 0
    for finished in finished_shards:
        good = [row for row, fact in enumerate(finished.facts, start) if not fact.problem]
        shards[good] = finished.shard.number
        slots[good] = np.arange(len(good))
        start += len(finished.facts)
    return facts, shards, slots


def require_same(found: Plan, wanted: Plan, folder: Path) -> None:
    """Refuse to go on with an unfinished build as if it were another one.

    Raises:
        IndexMismatch: Naming what differs.
    """
    different = [
        f"{field} was {getattr(found, field)!r}, is now {getattr(wanted, field)!r}"
        for field in Plan.__struct_fields__
        if getattr(found, field) != getattr(wanted, field)
    ]
    if different:
        raise IndexMismatch(
            f"{folder} holds an unfinished build of another kind: {'; '.join(different)}; "
            "repeat the first command to go on, choose another folder, or start anew with "
            "resume=False (--restart)"
        )

"""Finds what a build or update still has to encode, after earlier runs that were broken off."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.plan import FinishedShard, Plan, continues, image_locations
from hardmine.index.storage.image_table import FileFacts, ImageTable
from hardmine.index.storage.manifest import ShardRecord
from hardmine.records import ImageSet

log = logging.getLogger(__name__)

NOT_READ = FileFacts(0, 0, -1, -1, "", problem="not read yet")


@dataclass(frozen=True)
class Remaining:
    """What a build or update still has to do.

    Attributes:
        plan: Settings, and the images still to encode.
        rows: (M,) rows of the data set to encode, ascending.
        table: Table of all images; those to encode have no shard yet.
        adopted: Shards of earlier runs with other images, as far as the table names them.
        resumes: Whether the build folder already holds this plan.
    """

    plan: Plan
    rows: npt.NDArray[np.int64]
    table: ImageTable
    adopted: tuple[ShardRecord, ...]
    resumes: bool

    def begin(self, build_folder: BuildFolder) -> list[int]:
        """Prepare the build folder; return the numbers of the shards to make."""
        if self.resumes:
            build_folder.resume()
        elif self.adopted:
            build_folder.replace_plan(self.plan)
        else:
            build_folder.begin(self.plan)
        return build_folder.pending(self.plan)

    def complete(self, build_folder: BuildFolder) -> tuple[ImageTable, tuple[ShardRecord, ...]]:
        """The table with all images, and the shards that were made, once all are finished."""
        finished = build_folder.finished_shards(self.plan)
        _warn_if_unlike(finished)
        new_facts, new_shards, new_slots = image_locations(finished)
        facts = list(self.table.facts)
        for row, fact in zip(self.rows.tolist(), new_facts, strict=True):
            facts[row] = fact
        shards, slots = self.table.shards.copy(), self.table.slots.copy()
        shards[self.rows], slots[self.rows] = new_shards, new_slots
        table = replace(self.table, facts=tuple(facts), shards=shards, slots=slots)
        return table, tuple(one.shard for one in finished)


def find_remaining(
    build_folder: BuildFolder,
    images: ImageSet,
    table: ImageTable,
    rows: npt.NDArray[np.int64],
    make_plan: Callable[[npt.NDArray[np.int64], int], Plan],
    first_number: int,
) -> Remaining:
    """Find the images to encode, without those in finished shards of earlier runs.

    An image is the same if its path is, and its size and time, or else its content.

    Args:
        build_folder: Holds the earlier plan and its finished shards.
        images: The data set.
        table: The table of images, in which those at ``rows`` have no shard.
        rows: Rows to encode, ascending.
        make_plan: Makes the plan for some rows and the number of the first shard.
        first_number: Smallest number of a shard that is not in the index.
    """
    plan, stored = make_plan(rows, first_number), build_folder.plan()
    fresh = Remaining(plan, rows, table, (), resumes=stored == plan)
    if fresh.resumes or stored is None or not continues(stored, plan):
        return fresh
    # Shards below the plan's first number were adopted by the plan itself: if the images are still
    # the same, it goes on. Otherwise its own finished shards are adopted too.
    for limit in (stored.first_number, stored.numbers.stop):
        finished = build_folder.finished(range(first_number, limit))
        adopting, left = _adopt(images, table, rows, finished)
        plan = make_plan(left, limit)
        if plan == stored:
            break
    used = set(adopting.shards.tolist())
    adopted = tuple(one.shard for one in finished if one.shard.number in used)
    if not adopted:
        return fresh
    return Remaining(plan, left, adopting, adopted, resumes=plan == stored)


def _warn_if_unlike(finished: Sequence[FinishedShard]) -> None:
    """Warn if shards were made on what rounds in unlike ways: hardware, threads, torch."""
    shards = Counter(one.made_on for one in finished if one.made_on)
    if len(shards) > 1:
        log.warning(
            "the shards were made on unlike hardware, or with unlike threads or versions of torch "
            "(%s): their vectors agree up to rounding, and the index is not the same to the byte "
            "as one made on one kind",
            "; ".join(f"{count} on {kind}" for kind, count in shards.most_common()),
        )


def same_file(images: ImageSet, row: int, known: FileFacts) -> FileFacts | None:
    """Facts of an image with unchanged content; None if the content has changed."""
    path, time = images.path(row), images.modified(row)
    is_file = time > 0 and path.is_file()  # else it lies in an archive, has a reader or is missing
    size = path.stat().st_size if is_file else known.bytes
    if time > 0 and (size, time) == (known.bytes, known.mtime_ns):
        return known
    if known.bytes >= 0 and size != known.bytes:
        return None
    try:
        digest = hashlib.sha256(images.read(row)).hexdigest()
    except InputError:
        # What could not be read before is unchanged; what has become so has changed.
        return known if known.bytes < 0 else None
    return msgspec.structs.replace(known, mtime_ns=time) if digest == known.sha256 else None


def _adopt(
    images: ImageSet,
    table: ImageTable,
    rows: npt.NDArray[np.int64],
    finished: Sequence[FinishedShard],
) -> tuple[ImageTable, npt.NDArray[np.int64]]:
    """Take images from finished shards; return the table and the rows that are left."""
    place_of: dict[str, tuple[FileFacts, int, int]] = {}
    for one in finished:
        place_of |= dict(zip(one.paths, zip(*image_locations([one]), strict=True), strict=True))
    facts, shards, slots = list(table.facts), table.shards.copy(), table.slots.copy()
    left = []
    for row in rows.tolist():
        # Each place once, though a path may be listed twice.
        place = place_of.pop(images.paths[row], None)
        fact = None if place is None else same_file(images, row, place[0])
        if place is None or fact is None:
            left.append(row)
        else:
            facts[row], shards[row], slots[row] = fact, place[1], place[2]
    adopting = replace(table, facts=tuple(facts), shards=shards, slots=slots)
    return adopting, np.array(left, np.int64)

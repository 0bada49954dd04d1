"""The plan of a build: which images go into which shard, and with which settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.errors import IndexMismatch
from hardmine.index.storage.image_table import BROKEN, FileFacts
from hardmine.index.storage.manifest import Pixels, ShardRecord

# What the vectors of an image depend on, and the index that the shards are made for.
_SETTINGS = ("base", "encoder", "clusters", "seed", "dtype", "pixels")
# In place of a fingerprint of images: no build or update goes on with a compaction.
COMPACTING = "compact"


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Images and settings of a build or update; equal plans give equal shards.

    Attributes:
        base: Generation of the index that is updated; -1 for a new index.
        encoder: The encoder's fingerprint.
        clusters: The canonical clustering spec.
        seed: Seed of the clustering.
        dtype: dtype of the stored vectors.
        images: Fingerprint of the images to encode, in order.
        proposals: Fingerprint of their boxes for the clustering "boxes"; else empty.
        count: Number of images to encode.
        shard_size: Images in a shard; the last may have fewer.
        first_number: Number of the first shard.
        pixels: "exact" is the encoder's ``preprocess`` itself, "fast" the nearly same pixels of
            ``WholeImage.fast`` and ``decode_reduced``.
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
    pixels: Pixels = "exact"

    @property
    def numbers(self) -> range:
        """Numbers of the shards to make."""
        shards = -(-self.count // self.shard_size)
        return range(self.first_number, self.first_number + shards)

    def rows(self, number: int) -> range:
        """Rows of the images to encode that go into a shard."""
        start = (number - self.first_number) * self.shard_size
        return range(start, min(start + self.shard_size, self.count))

    def only(self, number: int) -> Plan:
        """A plan that makes one of the shards of the images that go into it."""
        count = len(self.rows(number))
        return msgspec.structs.replace(
            self, images="", proposals="", count=count, first_number=number
        )


class FinishedShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A shard whose files are written.

    Attributes:
        shard: Its record.
        paths: Path of each image given to it.
        facts: Facts of each of them.
        made_on: Device and version of torch. Not a part of the index, whose bytes are the same
            wherever vectors are.
    """

    shard: ShardRecord
    paths: tuple[str, ...]
    facts: tuple[FileFacts, ...]
    made_on: str = ""


def image_locations(
    finished_shards: Sequence[FinishedShard],
) -> tuple[tuple[FileFacts, ...], npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Facts, shard and slot of each image of a plan, in the plan's order."""
    facts = tuple(fact for finished in finished_shards for fact in finished.facts)
    shards = np.full(len(facts), BROKEN, np.int32)
    slots = np.full(len(facts), BROKEN, np.int32)
    start = 0
    for finished in finished_shards:
        readable = [row for row, fact in enumerate(finished.facts, start) if not fact.problem]
        shards[readable] = finished.shard.number
        slots[readable] = np.arange(len(readable))
        start += len(finished.facts)
    return facts, shards, slots


def continues(unfinished: Plan, plan: Plan) -> bool:
    """Whether finished shards of an unfinished plan, of other images, can serve a new plan.

    Boxes belong to image ids, which a finished shard does not keep.
    """
    return (
        unfinished.images != COMPACTING
        and unfinished.proposals == plan.proposals == ""
        and all(getattr(unfinished, name) == getattr(plan, name) for name in _SETTINGS)
    )


def require_same_plan(unfinished: Plan, plan: Plan, folder: Path) -> None:
    """Refuse to continue an unfinished build that has another plan.

    Raises:
        IndexMismatch: Naming the settings that differ.
    """
    differences = [
        f"{field} was {getattr(unfinished, field)!r}, is now {getattr(plan, field)!r}"
        for field in Plan.__struct_fields__
        if getattr(unfinished, field) != getattr(plan, field)
    ]
    if differences:
        raise IndexMismatch(
            f"{folder} holds an unfinished build with other settings: {'; '.join(differences)}; "
            "repeat the first command to continue it, choose another folder, or start again with "
            "resume=False (--restart)"
        )

"""Bringing an index up to date: only what is new or changed is encoded again."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.index.builder.build import (
    check_paths,
    check_readable,
    encoder_record,
    held,
    make_shards,
    require_proposals,
)
from hardmine.index.builder.commit import clear_up, commit
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.plan import BuildFolder, Plan, places
from hardmine.index.builder.proposals import Proposals, proposals_fingerprint
from hardmine.index.builder.ranks import RankGroup
from hardmine.index.open import open_index, require_fit
from hardmine.index.storage.files import sha256_of
from hardmine.index.storage.format import read_images
from hardmine.index.storage.image_table import FileFacts, ImageTable
from hardmine.index.storage.manifest import Manifest, read_manifest
from hardmine.records import ImageSet, rows_of

if TYPE_CHECKING:
    from hardmine.index.base import Index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """How a data set differs from what an index knows of it.

    Attributes:
        added: Rows of the data set that the index lacks.
        changed: Rows whose file is another than it was, or was broken and has changed since.
        removed: Ids that the data set no longer has.
        table: The index's table for this data set; what is to be encoded is not placed yet.
        stale: Whether the table differs from the one on disk.
    """

    added: npt.NDArray[np.int64]
    changed: npt.NDArray[np.int64]
    removed: npt.NDArray[Any]
    table: ImageTable
    stale: bool

    @property
    def encode(self) -> npt.NDArray[np.int64]:
        """Rows to encode, ascending."""
        return np.sort(np.concatenate([self.added, self.changed]))

    def __str__(self) -> str:
        return f"{len(self.added)} added, {len(self.changed)} changed, {len(self.removed)} removed"


def find_changes(table: ImageTable, images: ImageSet) -> Changes:
    """Compare a data set with an index, by id, then size and time, and only then by content."""
    old_rows = rows_of(table.ids, images.ids)
    facts, changed = [], []
    for row, old in enumerate(old_rows.tolist()):
        fact = _same_file(images.path(row), table.facts[old]) if old >= 0 else None
        facts.append(fact or FileFacts(0, 0, -1, -1, "", problem="not read yet"))
        if old >= 0 and fact is None:
            changed.append(row)
    kept = old_rows.copy()
    kept[changed] = -1
    found = ImageTable(
        images.ids,
        images.paths,
        tuple(facts),
        np.where(kept >= 0, np.append(table.shards, -1)[kept], -1).astype(np.int32),
        np.where(kept >= 0, np.append(table.slots, -1)[kept], -1).astype(np.int32),
    )
    return Changes(
        added=np.flatnonzero(old_rows < 0),
        changed=np.array(changed, np.int64),
        removed=np.delete(table.ids, old_rows[old_rows >= 0]),
        table=found,
        stale=found.facts != table.facts
        or found.paths != table.paths
        or not np.array_equal(found.ids, table.ids),
    )


def _same_file(path: Path, known: FileFacts) -> FileFacts | None:
    """The facts of a file whose content is what it was; None if it is another."""
    try:
        status = path.stat()
        if (status.st_size, status.st_mtime_ns) == (known.bytes, known.mtime_ns):
            return known
        if status.st_size != known.bytes or sha256_of(path) != known.sha256:
            return None
        return msgspec.structs.replace(known, mtime_ns=status.st_mtime_ns)
    except OSError:
        # Still missing is no change; gone since then is one, found out when it is read.
        return known if known.bytes < 0 else None


def update_index(
    path: str | Path,
    images: ImageSet,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    shard_size: int = 1024,
    proposals: Proposals | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Index:
    """Encode the images that are new or changed, and forget those that are gone.

    An image is changed when its length or time differ and then its content does too. Vectors of
    removed images stay on disk, out of reach of any search, until ``compact_index``. Killed at
    any moment, the index is what it was, and the same call goes on after the last whole shard.

    Args:
        path: The index.
        images: The data set as it is now; its order becomes the order of the index.
        encoder: The encoder that built the index.
        batch_size: Images the encoder takes at once.
        workers: Threads that decode; one a CPU core, 16 at most, if None.
        shard_size: Images a shard.
        proposals: For the clustering "boxes", as in ``build_index``.
        progress: Called after every batch.

    Raises:
        IndexMismatch: If the index was built with another encoder.
        HardmineError: If another process is writing the index, or the disk is full.
    """
    folder = Path(path)
    read_manifest(folder)  # before a lock file is laid down in a folder that is no index
    build_folder = BuildFolder(folder)
    with RankGroup() as ranks, held(ranks, folder):
        manifest, changes, pending, plan = ranks.on_rank_zero(
            lambda: _prepare(build_folder, images, encoder, proposals, shard_size)
        )
        if plan is not None:
            wanted = images.subset(changes.encode)
            make_shards(
                ranks,
                plan,
                pending,
                wanted,
                encoder,
                build_folder,
                batch_size=batch_size,
                workers=workers,
                proposals=proposals,
                progress=progress,
            )
            ranks.on_rank_zero(
                lambda: _finish(build_folder, plan, manifest, changes, images, encoder)
            )
    return open_index(folder, encoder=encoder, images=images)


def _prepare(
    build_folder: BuildFolder,
    images: ImageSet,
    encoder: Encoder,
    proposals: Proposals | None,
    shard_size: int,
) -> tuple[Manifest, Changes, list[int], Plan | None]:
    folder = build_folder.folder
    manifest = read_manifest(folder)
    require_fit(folder, manifest, encoder=encoder)
    require_proposals(manifest.clusters.spec, proposals)
    changes = find_changes(read_images(folder, manifest), images)
    log.info("%s: %s", folder, changes)
    root = str(images.root.absolute())
    if not changes.stale and root == manifest.images.root:
        clear_up(build_folder, manifest)
        return manifest, changes, [], None
    check_paths(images)
    if len(images) and len(changes.encode) == len(images):
        # Not one file is as it was: likelier a wrong folder than a data set made anew.
        check_readable(images)
    plan = Plan(
        base=manifest.generation,
        encoder=encoder.fingerprint,
        clusters=manifest.clusters.spec,
        seed=manifest.clusters.seed,
        dtype=manifest.dtype,
        images=images.subset(changes.encode).fingerprint,
        proposals=proposals_fingerprint(proposals, images.subset(changes.encode)),
        count=len(changes.encode),
        shard_size=shard_size,
        first_number=manifest.next_number,
    )
    if build_folder.plan() == plan:
        build_folder.go_on()
    else:
        # Unlike a build, an update says nothing of its own: what it is to do follows from the
        # data set, which has changed once more.
        build_folder.begin(plan)
    return manifest, changes, build_folder.pending(plan), plan


def _finish(
    build_folder: BuildFolder,
    plan: Plan,
    manifest: Manifest,
    changes: Changes,
    images: ImageSet,
    encoder: Encoder,
) -> None:
    finished_shards = build_folder.finished_shards(plan)
    new_facts, new_shards, new_slots = places(finished_shards)
    rows = changes.encode
    facts = list(changes.table.facts)
    for row, fact in zip(rows.tolist(), new_facts, strict=True):
        facts[row] = fact
    shards, slots = changes.table.shards.copy(), changes.table.slots.copy()
    shards[rows], slots[rows] = new_shards, new_slots
    table = replace(changes.table, facts=tuple(facts), shards=shards, slots=slots)
    made = tuple(finished.shard for finished in finished_shards)
    alive = set(shards.tolist())
    manifest = commit(
        build_folder,
        table,
        tuple(shard for shard in (*manifest.shards, *made) if shard.number in alive),
        generation=manifest.generation + 1,
        encoder=encoder_record(encoder),
        clusters=manifest.clusters,
        dtype=manifest.dtype,
        fingerprint=images.fingerprint,
        root=images.root.absolute(),
    )
    log.info("%s: %s", build_folder.folder, manifest.summary)

"""Brings an index up to date: encodes new and changed images, forgets removed ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hardmine.distributed import RankGroup
from hardmine.encoders.base import Encoder
from hardmine.index.arguments import require_encoder, require_images
from hardmine.index.builder.build import encoder_record, locked_for_all, tidy
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.checks import (
    check_paths,
    check_proposals,
    check_readable,
    check_sizes,
    escape_names,
)
from hardmine.index.builder.commit import commit
from hardmine.index.builder.executor import Job, executor_for, make_shards
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.plan import Plan
from hardmine.index.builder.proposals import Proposals, proposals_fingerprint
from hardmine.index.builder.remaining import NOT_READ, Remaining, find_remaining, same_file
from hardmine.index.open import open_index, require_fit
from hardmine.index.storage.image_table import ImageTable
from hardmine.index.storage.manifest import Manifest, read_manifest
from hardmine.index.storage.read import read_images, with_manifest
from hardmine.records import ImageSet, rows_of

if TYPE_CHECKING:
    from hardmine.index.base import Index

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Changes:
    """Differences between a data set and an index.

    Attributes:
        added: Rows of the data set that the index lacks.
        changed: Rows whose file has changed since it was read.
        removed: Ids that the data set no longer has.
        table: The new table of images; those to encode have no shard yet.
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
    """Compare a data set with an index by id, file size and time, and if needed by content."""
    images = escape_names(images)
    old_rows = rows_of(table.ids, images.ids)
    facts, changed = [], []
    for row, old in enumerate(old_rows.tolist()):
        fact = same_file(images, row, table.facts[old]) if old >= 0 else None
        facts.append(fact or NOT_READ)
        if old >= 0 and fact is None:
            changed.append(row)
    kept = old_rows.copy()
    kept[changed] = -1
    new_table = ImageTable(
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
        table=new_table,
        stale=new_table.facts != table.facts
        or new_table.paths != table.paths
        or not np.array_equal(new_table.ids, table.ids),
    )


def update_index(
    path: str | Path,
    images: ImageSet,
    encoder: Encoder,
    *,
    batch_size: int = 32,
    workers: int | None = None,
    shard_size: int = 1024,
    proposals: Proposals | None = None,
    executor: str | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Index:
    """Encode new and changed images, and forget removed ones.

    An image has changed if its file's length or time differs, and then its content too. Vectors
    of removed images stay on disk until ``compact_index``, but no search finds them. If killed at
    any moment, the old index stays, and the same call continues after the last finished shard. So
    does a call with other images: what is encoded of them stays encoded.

    Args:
        path: The index.
        images: The present data set; the index takes its order.
        encoder: The encoder that built the index.
        batch_size: Images that the encoder takes at once.
        workers: Threads that decode images; one per CPU core, at most 16, if None.
        shard_size: Images in a shard.
        proposals: For the clustering "boxes", as in ``build_index``.
        executor: Who makes the shards, as in ``build_index``.
        progress: Called after every batch, or with Ray every second.

    Raises:
        IndexMismatch: If the index was built with another encoder.
        HardmineError: If another process is writing the index, or the disk is full.
    """
    require_images(images)
    require_encoder(encoder)
    folder = Path(path)
    images = escape_names(images)
    build_folder = BuildFolder(folder)
    seen: list[tuple[Manifest, Changes]] = []  # by rank 0, before the lock

    def is_up_to_date() -> bool:
        seen.append(_look(folder, images, encoder, proposals))
        return _is_up_to_date(*seen[0], images)

    with RankGroup() as ranks:
        maker = executor_for(executor, ranks, images, encoder)
        # An index that is up to date is only opened: it may be read-only.
        if ranks.on_rank_zero(is_up_to_date):
            ranks.on_rank_zero(lambda: tidy(build_folder, keep_update=False))
            return open_index(folder, encoder=encoder, images=images)
        with locked_for_all(ranks, folder):
            update = ranks.on_rank_zero(
                lambda: _prepare(build_folder, images, encoder, proposals, shard_size, *seen[0])
            )
            if update is not None:
                manifest, remaining, pending = update
                job = Job(
                    remaining.plan,
                    pending,
                    images.subset(remaining.rows),
                    encoder,
                    build_folder,
                    batch_size=batch_size,
                    workers=workers,
                    proposals=proposals,
                )
                make_shards(maker, job, progress)
                ranks.on_rank_zero(
                    lambda: _finish(build_folder, manifest, remaining, images, encoder)
                )
    return open_index(folder, encoder=encoder, images=images)


def _look(
    folder: Path, images: ImageSet, encoder: Encoder, proposals: Proposals | None
) -> tuple[Manifest, Changes]:
    """The index, if it fits, and what has changed since."""

    def look(manifest: Manifest) -> tuple[Manifest, Changes]:
        require_fit(folder, manifest, encoder=encoder)
        check_proposals(manifest.clusters.spec, proposals)
        return manifest, find_changes(read_images(folder, manifest), images)

    manifest, changes = with_manifest(folder, look)
    log.info("%s: %s", folder, changes)
    return manifest, changes


def _is_up_to_date(manifest: Manifest, changes: Changes, images: ImageSet) -> bool:
    return not changes.stale and str(images.root.absolute()) == manifest.images.root


def _prepare(
    build_folder: BuildFolder,
    images: ImageSet,
    encoder: Encoder,
    proposals: Proposals | None,
    shard_size: int,
    manifest: Manifest,
    changes: Changes,
) -> tuple[Manifest, Remaining, list[int]] | None:
    """The index, what is left to do, and the shards to make; None if the index is up to date."""
    folder = build_folder.folder
    if read_manifest(folder) != manifest:  # another process has written before the lock was ours
        manifest, changes = _look(folder, images, encoder, proposals)
        if _is_up_to_date(manifest, changes, images):
            return None
    check_paths(images)
    if len(images) and len(changes.encode) == len(images):
        # Not one file is unchanged: more likely a wrong folder than a new data set.
        check_readable(images)

    def make_plan(rows: npt.NDArray[np.int64], first_number: int) -> Plan:
        to_encode = images.subset(rows)
        return Plan(
            base=manifest.generation,
            encoder=encoder.fingerprint,
            clusters=manifest.clusters.spec,
            seed=manifest.clusters.seed,
            dtype=manifest.dtype,
            images=to_encode.fingerprint,
            proposals=proposals_fingerprint(proposals, to_encode),
            count=len(rows),
            shard_size=shard_size,
            first_number=first_number,
            pixels=manifest.pixels,
        )

    # Unlike an unfinished build, an unfinished update of which no image is left is dropped: the
    # data set has changed again since.
    remaining = find_remaining(
        build_folder, images, changes.table, changes.encode, make_plan, manifest.next_number
    )
    return manifest, remaining, remaining.begin(build_folder)


def _finish(
    build_folder: BuildFolder,
    manifest: Manifest,
    remaining: Remaining,
    images: ImageSet,
    encoder: Encoder,
) -> None:
    table, made = remaining.complete(build_folder)
    used = set(table.shards.tolist())
    shards = (*manifest.shards, *remaining.adopted, *made)
    manifest = commit(
        build_folder,
        table,
        tuple(shard for shard in shards if shard.number in used),
        generation=manifest.generation + 1,
        encoder=encoder_record(encoder),
        clusters=manifest.clusters,
        dtype=manifest.dtype,
        fingerprint=images.fingerprint,
        root=images.root.absolute(),
        pixels=manifest.pixels,
    )
    log.info("%s: %s", build_folder.folder, manifest.summary)
    check_sizes(images, table)

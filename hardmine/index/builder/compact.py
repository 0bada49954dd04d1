"""Frees the space of removed images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hardmine.errors import HardmineError
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.commit import commit, remove_unused
from hardmine.index.builder.lock import locked
from hardmine.index.builder.plan import COMPACTING, Plan
from hardmine.index.storage.image_table import ImageTable
from hardmine.index.storage.manifest import Manifest, ShardRecord, read_manifest
from hardmine.index.storage.read import read_images, read_store
from hardmine.index.storage.shard_files import write_shard
from hardmine.index.storage.store import Store

log = logging.getLogger(__name__)


def compact_index(path: str | Path, *, shard_size: int = 1024) -> Manifest:
    """Rewrite the shards that hold removed images, or few images.

    Searches give the same hits as before. If killed at any moment, the old index stays. The disk
    needs room for the rewritten shards beside the old ones.

    Args:
        path: The index.
        shard_size: Images in a shard. Shards at least half full and without removed images stay.

    Raises:
        IndexDamaged: If the index is damaged. Every byte is checked, so that no damage gets a
            new, matching hash.
        HardmineError: If another process is writing the index, an update of it is unfinished, or
            the disk is full.
    """
    folder = Path(path)
    build_folder = BuildFolder(folder)
    read_manifest(folder)
    with locked(folder):
        manifest = read_manifest(folder)
        if waiting := build_folder.unfinished_update(manifest.generation):
            raise HardmineError(
                f"{folder} holds an unfinished update, of which {waiting} images are encoded; "
                "finish it with update_index (hardmine index update), then compact"
            )
        table = read_images(folder, manifest)
        store = read_store(folder, verify=True)
        rewritten = [
            number
            for number, shard in enumerate(store.shards)
            if (shard.rows < 0).any() or len(shard) < shard_size // 2
        ]
        if not rewritten or (len(rewritten) == 1 and (store.shards[rewritten[0]].rows >= 0).all()):
            remove_unused(build_folder, manifest)
            return manifest
        return _rewrite(build_folder, manifest, table, store, rewritten, shard_size)


def _rewrite(
    build_folder: BuildFolder,
    manifest: Manifest,
    table: ImageTable,
    store: Store,
    rewritten: list[int],
    shard_size: int,
) -> Manifest:
    """Replace the shards at some positions by new ones without removed images."""
    shard_of, _ = store.locations
    rows = np.flatnonzero(np.isin(shard_of, rewritten))
    build_folder.begin(_plan(manifest, len(rows), shard_size))
    # The store has the table's rows without the broken ones.
    in_table = np.flatnonzero(~table.broken)
    shards, slots = table.shards.copy(), table.slots.copy()
    new_shards = []
    for number, start in enumerate(range(0, len(rows), shard_size), manifest.next_number):
        chunk = rows[start : start + shard_size]
        new_shards.append(_copy(build_folder, manifest, store, chunk, number))
        shards[in_table[chunk]] = number
        slots[in_table[chunk]] = np.arange(len(chunk))
    kept = [shard for number, shard in enumerate(manifest.shards) if number not in set(rewritten)]
    compacted = commit(
        build_folder,
        replace(table, shards=shards, slots=slots),
        (*kept, *new_shards),
        generation=manifest.generation + 1,
        encoder=manifest.encoder,
        clusters=manifest.clusters,
        dtype=manifest.dtype,
        fingerprint=manifest.images.fingerprint,
        root=Path(manifest.images.root),
        pixels=manifest.pixels,
    )
    log.info("%s: %s", build_folder.folder, compacted.summary)
    return compacted


def _plan(manifest: Manifest, count: int, shard_size: int) -> Plan:
    """A plan that no build or update makes, so that none continues an unfinished compaction."""
    return Plan(
        base=manifest.generation,
        encoder=manifest.encoder.fingerprint,
        clusters=manifest.clusters.spec,
        seed=manifest.clusters.seed,
        dtype=manifest.dtype,
        images=COMPACTING,
        proposals="",
        count=count,
        shard_size=shard_size,
        first_number=manifest.next_number,
        pixels=manifest.pixels,
    )


def _copy(
    build_folder: BuildFolder,
    manifest: Manifest,
    store: Store,
    rows: npt.NDArray[np.int64],
    number: int,
) -> ShardRecord:
    """Write a new shard with the regions of some rows of the store."""
    shard_of, slot_of = store.locations
    vectors, boxes, mass, scales, counts = [], [], [], [], []
    for row in rows.tolist():
        shard, slot = store.shards[shard_of[row]], slot_of[row]
        regions = slice(int(shard.offsets[slot]), int(shard.offsets[slot + 1]))
        vectors.append(shard.vectors[regions])
        boxes.append(shard.boxes[regions])
        mass.append(shard.mass[regions])
        counts.append(regions.stop - regions.start)
        if shard.scales is not None:
            scales.append(shard.scales[regions])
    layout = {
        "offsets": np.cumsum([0, *counts], dtype=np.int64),
        "boxes": np.concatenate(boxes),
        "mass": np.concatenate(mass),
    }
    if manifest.dtype == "int8":
        layout["scales"] = np.concatenate(scales)
    return write_shard(
        build_folder.folder,
        number,
        vectors,
        layout,
        dim=store.dim,
        dtype=manifest.dtype,
        scratch=build_folder.path,
    )

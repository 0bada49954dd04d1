"""Giving back the space of removed images."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hardmine.index.builder.commit import clear_up, commit
from hardmine.index.builder.lock import locked
from hardmine.index.builder.plan import BuildFolder, Plan
from hardmine.index.storage.format import read_images, read_store, write_shard
from hardmine.index.storage.image_table import ImageTable
from hardmine.index.storage.manifest import Manifest, ShardRecord, read_manifest
from hardmine.index.storage.store import Store

log = logging.getLogger(__name__)


def compact_index(path: str | Path, *, shard_size: int = 1024) -> Manifest:
    """Write shards that hold removed images, or few images, anew without the waste.

    Searches answer as before. Killed at any moment, the index is what it was. Needs room for the
    shards it rewrites beside the old ones.

    Args:
        path: The index.
        shard_size: Images a shard; those at least half full and without waste are left alone.

    Raises:
        IndexDamaged: If the index is not whole: every byte is checked, so that no damage is
            copied under a fresh hash.
        HardmineError: If another process is writing the index, or the disk is full.
    """
    folder = Path(path)
    read_manifest(folder)
    with locked(folder):
        build_folder = BuildFolder(folder)
        manifest = read_manifest(folder)
        table = read_images(folder, manifest)
        store = read_store(folder, verify=True)
        wasteful = [
            number
            for number, shard in enumerate(store.shards)
            if (shard.rows < 0).any() or len(shard) < shard_size // 2
        ]
        if not wasteful or (len(wasteful) == 1 and (store.shards[wasteful[0]].rows >= 0).all()):
            clear_up(build_folder, manifest)
            return manifest
        return _rewrite(build_folder, manifest, table, store, wasteful, shard_size)


def _rewrite(
    build_folder: BuildFolder,
    manifest: Manifest,
    table: ImageTable,
    store: Store,
    wasteful: list[int],
    shard_size: int,
) -> Manifest:
    shard_of, _ = store.places
    rows = np.flatnonzero(np.isin(shard_of, wasteful))
    build_folder.begin(_plan(manifest, len(rows), shard_size))
    # Rows of the store are the table's without the broken ones.
    in_table = np.flatnonzero(~table.broken)
    shards, slots = table.shards.copy(), table.slots.copy()
    made = []
    for number, start in enumerate(range(0, len(rows), shard_size), manifest.next_number):
        chosen = rows[start : start + shard_size]
        made.append(_copy(build_folder, manifest, store, chosen, number))
        shards[in_table[chosen]] = number
        slots[in_table[chosen]] = np.arange(len(chosen))
    kept = [shard for place, shard in enumerate(manifest.shards) if place not in set(wasteful)]
    compacted = commit(
        build_folder,
        replace(table, shards=shards, slots=slots),
        (*kept, *made),
        generation=manifest.generation + 1,
        encoder=manifest.encoder,
        clusters=manifest.clusters,
        dtype=manifest.dtype,
        fingerprint=manifest.images.fingerprint,
        root=Path(manifest.images.root),
    )
    log.info("%s: %s", build_folder.folder, compacted.summary)
    return compacted


def _plan(manifest: Manifest, count: int, shard_size: int) -> Plan:
    """Marks the unfinished work as nobody else's: no update ever makes this plan."""
    return Plan(
        base=manifest.generation,
        encoder=manifest.encoder.fingerprint,
        clusters=manifest.clusters.spec,
        seed=manifest.clusters.seed,
        dtype=manifest.dtype,
        images="compact",
        proposals="",
        count=count,
        shard_size=shard_size,
        first_number=manifest.next_number,
    )


def _copy(
    build_folder: BuildFolder,
    manifest: Manifest,
    store: Store,
    rows: npt.NDArray[np.int64],
    number: int,
) -> ShardRecord:
    shard_of, place_in = store.places
    vectors, boxes, mass, scales, counts = [], [], [], [], []
    for row in rows.tolist():
        shard, place = store.shards[shard_of[row]], place_in[row]
        mine = slice(int(shard.offsets[place]), int(shard.offsets[place + 1]))
        vectors.append(shard.vectors[mine])
        boxes.append(shard.boxes[mine])
        mass.append(shard.mass[mine])
        counts.append(mine.stop - mine.start)
        if shard.scales is not None:
            scales.append(shard.scales[mine])
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

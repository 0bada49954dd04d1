"""Checks every byte of an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.manifest import read_manifest
from hardmine.index.storage.read import check_file, read_store
from hardmine.index.storage.store import Shard

# Largest norm that a unit vector can have after rounding, with a margin.
_MAX_NORM = 1.1
_ROWS = 1 << 14


def verify_index(
    path: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[str, ...]:
    """Read a whole index and list its problems.

    Compares every file with its hash in the manifest, and the manifest with its own hash. Then
    checks that the shards fit the table of images and hold unit vectors.

    Args:
        path: The index.
        progress: Called with the bytes read so far and the total.

    Returns:
        Problems, one line each; empty if the index is sound.
    """
    folder = Path(path)
    try:
        manifest = read_manifest(folder)
    except (IndexDamaged, IndexMismatch) as error:
        return (str(error),)
    problems = []
    total = sum(record.bytes for record in manifest.files)
    done = 0
    for record in manifest.files:
        try:
            check_file(folder, record)
        except IndexDamaged as error:
            problems.append(str(error))
        done += record.bytes
        if progress is not None:
            progress(done, total)
    if problems:
        return tuple(problems)
    try:
        store = read_store(folder, verify=False)
    except IndexDamaged as error:
        return (str(error),)
    return tuple(
        f"{folder / record.vectors.name} holds vectors that are not of unit length; build again"
        for record, shard in zip(manifest.shards, store.shards, strict=True)
        if not _holds_unit_vectors(shard)
    )


def _holds_unit_vectors(shard: Shard) -> bool:
    for start in range(0, len(shard.vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        vectors = np.asarray(shard.vectors[rows], np.float32)
        if shard.scales is not None:
            vectors = vectors * shard.scales[rows, None]
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(vectors, axis=1)
        # This form is False for NaN.
        if not (norms <= _MAX_NORM).all():
            return False
    return True

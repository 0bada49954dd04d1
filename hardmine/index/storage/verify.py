"""Checking every byte of an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.files import FileRecord
from hardmine.index.storage.format import check_file, read_store
from hardmine.index.storage.manifest import read_manifest
from hardmine.index.storage.store import Shard

# Stored vectors are rounded; nothing sound is longer than this.
_LONGEST = 1.1
_ROWS = 1 << 14


def verify_index(
    path: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> tuple[str, ...]:
    """Read a whole index and say what is wrong with it.

    Every file is compared with its hash in the manifest, and the manifest with its own; then the
    shards must fit the table of images and hold unit vectors.

    Args:
        path: The index.
        progress: Called with the bytes read and the bytes in all.

    Returns:
        Problems, one line each; none if the index is whole.
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
        problem = _problem(folder, record)
        if problem:
            problems.append(problem)
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
        if not _sound(shard)
    )


def _problem(folder: Path, record: FileRecord) -> str:
    try:
        check_file(folder, record)
    except IndexDamaged as error:
        return str(error)
    return ""


def _sound(shard: Shard) -> bool:
    for start in range(0, len(shard.vectors), _ROWS):
        rows = slice(start, start + _ROWS)
        vectors = np.asarray(shard.vectors[rows], np.float32)
        if shard.scales is not None:
            vectors = vectors * shard.scales[rows, None]
        with np.errstate(over="ignore", invalid="ignore"):
            lengths = np.linalg.norm(vectors, axis=1)
        # Written so that NaN fails.
        if not (lengths <= _LONGEST).all():
            return False
    return True

"""Checks every byte of an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.joined import is_joined, part_folders, read_parts
from hardmine.index.storage.manifest import Manifest, read_manifest
from hardmine.index.storage.read import check_file, holds_unit_vectors, read_store


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
        if is_joined(folder):
            return _problems_of_parts(folder, progress)
        manifest = read_manifest(folder)
        while problems := _problems(folder, manifest, progress):
            # An update may have replaced the manifest and removed the old files meanwhile.
            latest = read_manifest(folder)
            if latest == manifest:
                break
            manifest = latest
    except (IndexDamaged, IndexMismatch) as error:
        return (str(error),)
    return problems


def _problems_of_parts(
    folder: Path, progress: Callable[[int, int], None] | None
) -> tuple[str, ...]:
    """Problems of the indexes that a folder joins, and of their fit."""
    folders = part_folders(folder)
    sizes = [sum(record.bytes for record in read_manifest(part).files) for part in folders]
    problems: list[str] = []
    for place, part in enumerate(folders):
        before = sum(sizes[:place])

        def report(done: int, total: int, before: int = before) -> None:
            if progress is not None:
                progress(before + done, sum(sizes))

        problems += verify_index(part, progress=report)
    if not problems:
        read_parts(folder, verify=False)
    return tuple(problems)


def _problems(
    folder: Path, manifest: Manifest, progress: Callable[[int, int], None] | None
) -> tuple[str, ...]:
    """Problems of the files that a manifest names."""
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
        store = read_store(folder, manifest, verify=False)
        store.read()
    except IndexDamaged as error:
        return (str(error),)
    return tuple(
        f"{folder / record.vectors.name} holds vectors that are not of unit length; build again"
        for record, shard in zip(manifest.shards, store.shards, strict=True)
        if not holds_unit_vectors(shard)
    )

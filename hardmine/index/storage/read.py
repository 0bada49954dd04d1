"""Reads the folder of an index into a ``Store`` and checks it against the manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from hardmine.addresses import as_path
from hardmine.errors import IndexDamaged
from hardmine.index.storage.files import FileRecord, require_regular, sha256_of
from hardmine.index.storage.image_table import ImageTable, read_table
from hardmine.index.storage.manifest import Manifest, read_manifest, render
from hardmine.index.storage.shard_files import map_shard
from hardmine.index.storage.store import Shard, Store

# Up to this size, vectors are hashed at every open, which takes a fraction of a second. Of larger
# vectors only length and header are checked; `verify` hashes the rest.
HASHED_AT_OPEN = 256 << 20
# Largest norm that a unit vector can have after rounding, with a margin.
_MAX_NORM = 1.1
_ROWS = 1 << 14
Result = TypeVar("Result")


def with_manifest(
    folder: Path, read: Callable[[Manifest], Result], manifest: Manifest | None = None
) -> Result:
    """Read files of an index that another process may be updating.

    An update replaces the manifest, then removes the files that only the old one names. If a file
    is missing and the manifest has been replaced since, the new one is read.

    Args:
        folder: The index.
        read: Called with the manifest, again with the next one if it raises ``IndexDamaged``.
        manifest: The manifest to begin with; the latest if None.
    """
    if manifest is None:
        manifest = read_manifest(folder)
    try:
        return read(manifest)
    except IndexDamaged:
        latest = read_manifest(folder)
        if latest == manifest:
            raise
    return with_manifest(folder, read, latest)


def read_store(
    folder: str | Path,
    manifest: Manifest | None = None,
    *,
    root: Path | None = None,
    verify: bool | None = None,
) -> Store:
    """Read an index from disk; its vectors stay there, memory-mapped.

    Args:
        folder: The index.
        manifest: Its manifest; None reads the latest, also while an update is replacing it.
        root: Folder of the images; the one they were built from if None.
        verify: Whether to read all shards: to hash them, and to check that they hold unit vectors.
            None reads up to 256 MiB of vectors. Of a shard that is not read here, the lengths are
            checked; its layout is held against its hash when it is first used.

    Raises:
        IndexDamaged: If a file is missing, altered or inconsistent.
    """
    folder = Path(folder)
    if manifest is None:
        return with_manifest(
            folder, lambda latest: read_store(folder, latest, root=root, verify=verify)
        )
    if verify is None:
        verify = sum(shard.vectors.bytes for shard in manifest.shards) <= HASHED_AT_OPEN
    table = read_images(folder, manifest)
    readable = np.flatnonzero(~table.broken)
    rows_of_shard = _rows_by_shard(manifest, table, readable)
    shards = [
        map_shard(folder, manifest, record, rows_of_shard[record.number])
        for record in manifest.shards
    ]
    store = Store(
        root=as_path(manifest.images.root) if root is None else root,
        ids=table.ids[readable],
        paths=table.paths_of(readable),
        sizes=table.sizes[readable],
        dim=manifest.encoder.dim,
        encoder_fingerprint=manifest.encoder.fingerprint,
        clusters=manifest.clusters.spec,
        shards=tuple(shards),
        folder=folder,
        digest=hashlib.sha256(render(manifest)).hexdigest(),
    )
    if verify:
        store.read()
        for record, shard in zip(manifest.shards, shards, strict=True):
            check_file(folder, record.vectors)
            if not holds_unit_vectors(shard):
                raise IndexDamaged(
                    f"{folder / record.vectors.name} holds vectors that are not of unit length; "
                    "build again"
                )
    return store


def check_file(folder: Path, record: FileRecord) -> None:
    """Check a file's length and hash against the manifest.

    Raises:
        IndexDamaged: If it differs.
    """
    path = folder / record.name
    try:
        status = path.stat()
        require_regular(path, status.st_mode)
        length = status.st_size
        if length != record.bytes:
            raise IndexDamaged(
                f"{path} is damaged: expected {record.bytes} bytes, got {length}; "
                "restore it, or build again"
            )
        if sha256_of(path) != record.sha256:
            raise IndexDamaged(
                f"{path} is damaged: its content has changed; restore it, or build again"
            )
    except OSError as error:
        raise IndexDamaged(
            f"{path} cannot be read: {error.strerror}; restore it, or build again"
        ) from None


def read_images(folder: Path, manifest: Manifest) -> ImageTable:
    """Read the table of images and check it against the manifest."""
    record = manifest.images.table
    check_file(folder, record)
    table = read_table(folder, record, count=manifest.images.count)
    path = folder / record.name
    numbers = np.array([shard.number for shard in manifest.shards], np.int64)
    limits = np.array([shard.images for shard in manifest.shards], np.int64)
    stored = ~table.broken
    shards, slots = table.shards[stored], table.slots[stored]
    # Numbers ascend. Position 0 stands for a number that is none of them.
    place = np.searchsorted(numbers, shards, side="right")
    known = np.append(-1, numbers)[place] == shards
    if not known.all() or (slots >= np.append(0, limits)[place]).any():
        raise IndexDamaged(f"{path} is damaged: it names slots that no shard has; build again")
    broken = int(table.broken.sum())
    if broken != manifest.images.broken:
        raise IndexDamaged(
            f"{path} is damaged: it lists {broken} broken images, the manifest "
            f"{manifest.images.broken}; build again"
        )
    return table


def holds_unit_vectors(shard: Shard) -> bool:
    """Whether no vector of a shard is longer than a unit vector can be, or NaN."""
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


def _rows_by_shard(
    manifest: Manifest, table: ImageTable, readable: npt.NDArray[np.int64]
) -> dict[int, npt.NDArray[np.int64]]:
    """By shard number (n,) rows of its stored images in the ``Store``; -1 for a removed image."""
    shards, slots = table.shards[readable], table.slots[readable]
    order = np.argsort(shards, kind="stable")
    numbers = [shard.number for shard in manifest.shards]
    starts = np.searchsorted(shards[order], [*numbers, np.iinfo(np.int32).max])
    rows_of_shard = {}
    for record, start, stop in zip(manifest.shards, starts[:-1], starts[1:], strict=True):
        # A count that the layout file cannot hold must not allocate memory.
        if (record.images + 1) * 8 > record.layout.bytes:
            raise IndexDamaged(
                f"{record.layout.name} is damaged: its {record.layout.bytes} bytes cannot hold "
                f"{record.images} images; restore it, or build again"
            )
        stored = order[start:stop]
        rows_of_shard[record.number] = np.full(record.images, -1, np.int64)
        rows_of_shard[record.number][slots[stored]] = stored
    return rows_of_shard

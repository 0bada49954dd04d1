"""``joined.json``: a list of indexes that open as one, and the one ``Store`` that they make."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from hardmine._version import __version__
from hardmine.addresses import as_path
from hardmine.errors import IndexDamaged, IndexMismatch
from hardmine.index.storage.columns import TextColumn
from hardmine.index.storage.files import read_regular, write_durably
from hardmine.index.storage.image_table import are_unique, check_path
from hardmine.index.storage.manifest import (
    JOINED,
    Count,
    Manifest,
    refuse_other_format,
    seal,
)
from hardmine.index.storage.read import read_store, with_manifest
from hardmine.index.storage.store import Store

FORMAT = 1
_MAX_BYTES = 16 << 20


class JoinedManifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Contents of ``joined.json``.

    Attributes:
        format: Version of the file.
        hardmine: Version of hardmine that wrote it.
        parts: Folders of the indexes, in the order of their images, below the folder that holds
            the joined index. What they hold is not written down, so each can be updated by itself.
    """

    format: Count
    hardmine: str
    parts: tuple[str, ...]


class _Sealed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    manifest: JoinedManifest
    sha256: str


def is_joined(folder: str | Path) -> bool:
    """Whether a folder joins indexes, instead of being one."""
    return (Path(folder) / JOINED).is_file()


def write_joined(folder: Path, parts: Sequence[str]) -> None:
    """Replace the list of parts atomically."""
    manifest = JoinedManifest(format=FORMAT, hardmine=__version__, parts=tuple(parts))
    write_durably(folder, JOINED, [seal(manifest)], scratch=folder)


def read_joined(folder: Path) -> tuple[str, ...]:
    """Read the list of parts, as ``write_joined`` got it.

    Raises:
        IndexDamaged: If it is missing, altered, or names a part elsewhere.
        IndexMismatch: If a newer hardmine wrote it.
    """
    path = folder / JOINED
    try:
        content = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise IndexDamaged(f"{path} cannot be read: {error.strerror}; join again") from None
    refuse_other_format(path, content, FORMAT)
    try:
        manifest = msgspec.json.decode(content, type=_Sealed).manifest
        if seal(manifest) != content:
            raise ValueError("its checksum does not match")
        for part in manifest.parts:
            check_path(part)
        if not manifest.parts or len(set(manifest.parts)) < len(manifest.parts):
            raise ValueError("it lists no part, or a part twice")
    except (msgspec.MsgspecError, RecursionError, ValueError) as error:
        raise IndexDamaged(f"{path} is damaged ({error}); restore it, or join again") from None
    return manifest.parts


def part_folders(folder: str | Path) -> tuple[Path, ...]:
    """Folders of the indexes that make up an index: its parts, or itself if it joins none."""
    folder = Path(folder)
    if not is_joined(folder):
        return (folder,)
    above = folder.absolute().parent
    return tuple(above / part for part in read_joined(folder))


def read_parts(
    folder: Path,
    check: Callable[[Path, Manifest], None] | None = None,
    *,
    root: Path | None = None,
    verify: bool | None = None,
) -> Store:
    """Read an index, or the indexes that it joins, as one ``Store``.

    Args:
        folder: The index.
        check: Called with the folder and manifest of each part before its files are read.
        root: As in ``read_store``.
        verify: As in ``read_store``.

    Raises:
        IndexDamaged: If a file of a part is missing, altered or inconsistent.
        IndexMismatch: If the parts do not fit together.
    """
    folders = part_folders(folder)
    if folders == (folder,):
        return _read_one(folder, check, root=root, verify=verify)[1]
    return replace(read_stores(folders, check, root=root, verify=verify), folder=folder)


def read_stores(
    folders: Sequence[Path],
    check: Callable[[Path, Manifest], None] | None = None,
    *,
    root: Path | None = None,
    verify: bool | None = None,
) -> Store:
    """Read several indexes as one ``Store``; see ``read_parts``."""
    stores = []
    manifests: list[Manifest] = []
    for part in folders:
        manifest, store = _read_one(part, check, verify=verify)
        manifests.append(manifest)
        stores.append(store)
        require_like(folders[0], manifests[0], part, manifest)
    return join_stores(stores, folders, root=root)


def _read_one(
    folder: Path,
    check: Callable[[Path, Manifest], None] | None,
    *,
    root: Path | None = None,
    verify: bool | None,
) -> tuple[Manifest, Store]:
    def read(manifest: Manifest) -> tuple[Manifest, Store]:
        if check is not None:
            check(folder, manifest)
        return manifest, read_store(folder, manifest, root=root, verify=verify)

    return with_manifest(folder, read)


def require_like(first: Path, wanted: Manifest, other: Path, manifest: Manifest) -> None:
    """Refuse to join two indexes whose vectors or regions were made in different ways.

    Raises:
        IndexMismatch: Naming what differs.
    """
    for what, one, two in (
        ("encoder", wanted.encoder.fingerprint, manifest.encoder.fingerprint),
        ("clusters", wanted.clusters.spec, manifest.clusters.spec),
        ("seed of the clusters", wanted.clusters.seed, manifest.clusters.seed),
        ("dtype", wanted.dtype, manifest.dtype),
    ):
        if one != two:
            raise IndexMismatch(
                f"{other} does not fit {first}: its {what} is {two}, expected {one}; join indexes "
                "that were built with the same settings"
            )


def join_stores(
    stores: Sequence[Store], folders: Sequence[Path], *, root: Path | None = None
) -> Store:
    """Make one store of several: their images one after the other, their shards as they are.

    Args:
        stores: Made with the same settings.
        folders: Of the indexes, for messages.
        root: Folder that paths are relative to; None for the one that holds all images.

    Raises:
        IndexMismatch: If an image id is in two of them.
    """
    above, ways = common_root([store.root for store in stores], root)
    starts = np.cumsum([0, *(len(store) for store in stores)])
    shards = tuple(
        shard.with_rows(np.where(shard.rows >= 0, shard.rows + start, -1))
        for store, start in zip(stores, starts.tolist(), strict=False)
        for shard in store.shards
    )
    digests = tuple(store.digest for store in stores)
    return Store(
        root=above,
        ids=join_ids([store.ids for store in stores], [str(folder) for folder in folders]),
        paths=TextColumn.joined([store.paths for store in stores], ways),
        sizes=np.concatenate([store.sizes for store in stores]),
        dim=stores[0].dim,
        encoder_fingerprint=stores[0].encoder_fingerprint,
        clusters=stores[0].clusters,
        shards=shards,
        digest=join_digests(digests),
        parts=digests,
    )


def join_digests(parts: Sequence[str]) -> str:
    """Digest of an index that joins others; of one alone, the digest of that one."""
    return parts[0] if len(parts) == 1 else hashlib.sha256(" ".join(parts).encode()).hexdigest()


def join_ids(parts: Sequence[npt.NDArray[Any]], names: Sequence[str]) -> npt.NDArray[Any]:
    """Ids of the images of several indexes, one after the other.

    Args:
        parts: (N,) ids of each.
        names: Their names, for messages.

    Raises:
        IndexMismatch: If an id is in two of them, or some are text and others numbers.
    """
    filled = [ids for ids in parts if len(ids)] or parts[:1]
    if len({ids.dtype.kind in "US" for ids in filled}) > 1:
        kinds = [
            f"{name} {'text' if ids.dtype.kind in 'US' else 'numbers'}"
            for name, ids in zip(names, parts, strict=True)
        ]
        raise IndexMismatch(
            f"image ids must be all text or all numbers to be joined, got {', '.join(kinds)}"
        )
    joined = np.concatenate(filled)
    if are_unique(joined):
        return joined
    counts = pc.value_counts(pa.array(joined))
    repeated = counts.field("values").filter(pc.greater(counts.field("counts"), 1))
    one = repeated[0].as_py()
    holders = [name for name, ids in zip(names, parts, strict=True) if (ids == one).any()]
    raise IndexMismatch(
        f"{len(repeated)} image ids are in more than one index, e.g. {one!r} in "
        f"{' and '.join(holders)}; leave one of them out, or build it with other ids"
    )


def common_root(roots: Sequence[Path], given: Path | None) -> tuple[Path, list[str]]:
    """The folder that holds all others, and the way from it to each; empty where it is the same."""
    try:
        above = as_path(os.path.commonpath(roots))
    except ValueError:
        raise IndexMismatch(
            f"the images of joined indexes must lie below one folder, got {roots[0]} and others; "
            "build the parts from folders on one file system"
        ) from None
    ways = [root.relative_to(above).as_posix() for root in roots]
    return given or above, ["" if way == "." else way for way in ways]

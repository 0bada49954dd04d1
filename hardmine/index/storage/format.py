"""What lies on disk: a shard's two files, and a whole folder read back into a ``Store``."""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import HardmineError, IndexDamaged
from hardmine.index.storage.files import FileRecord, sha256_of, write_durably
from hardmine.index.storage.image_table import ImageTable, read_table
from hardmine.index.storage.manifest import (
    Manifest,
    ShardRecord,
    layout_name,
    read_manifest,
    vectors_name,
)
from hardmine.index.storage.store import Shard, Store

# Vectors up to this size are hashed at every open (a fraction of a second); beyond it their
# lengths and headers are, and `verify` hashes the rest.
HASHED_AT_OPEN = 256 << 20
_HEADER = 128  # bytes before the values of every array


def write_shard(
    folder: Path,
    number: int,
    vectors: Sequence[npt.NDArray[Any]],
    layout: dict[str, npt.NDArray[Any]],
    *,
    dim: int,
    dtype: str,
    scratch: Path,
) -> ShardRecord:
    """Write the two files of a shard; equal arrays give equal bytes.

    Args:
        folder: The index.
        number: Number of the shard.
        vectors: Its (R, D) vectors in pieces, one after the other.
        layout: ``offsets``, ``boxes``, ``mass`` and for int8 vectors ``scales``, as in ``Shard``.
        dim: D.
        dtype: ``"float16"`` or ``"int8"``.
        scratch: Folder on the same file system for unfinished files.
    """
    regions = sum(len(piece) for piece in vectors)
    # Empty pieces have no buffer to write.
    pieces = [np.ascontiguousarray(piece) for piece in vectors if len(piece)]
    return ShardRecord(
        number=number,
        images=len(layout["offsets"]) - 1,
        regions=regions,
        vectors=write_durably(
            folder, vectors_name(number), [_header(dtype, (regions, dim)), *pieces], scratch=scratch
        ),
        layout=write_durably(folder, layout_name(number), [_pack(layout)], scratch=scratch),
    )


def read_store(
    folder: str | Path, *, root: Path | None = None, verify: bool | None = None
) -> Store:
    """Read an index from disk; vectors stay there, memory-mapped.

    Args:
        folder: The index.
        root: Where the images lie now; the folder they were built from if None.
        verify: Whether to hash the vectors too. None does where that takes a fraction of a
            second. Everything else is always hashed.

    Raises:
        IndexDamaged: If any file is missing, altered or makes no sense.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    if verify is None:
        verify = sum(shard.vectors.bytes for shard in manifest.shards) <= HASHED_AT_OPEN
    table = read_images(folder, manifest)
    kept = np.flatnonzero(~table.broken)
    places = _rows_by_shard(manifest, table, kept)
    shards = []
    for record in manifest.shards:
        check_file(folder, record.vectors, whole=verify)
        check_file(folder, record.layout)
        shards.append(read_shard(folder, manifest, record, places[record.number]))
    return Store(
        root=Path(manifest.images.root) if root is None else root,
        ids=table.ids[kept],
        paths=tuple(table.paths[row] for row in kept.tolist()),
        sizes=table.sizes[kept],
        dim=manifest.encoder.dim,
        encoder_fingerprint=manifest.encoder.fingerprint,
        clusters=manifest.clusters.spec,
        shards=tuple(shards),
    )


def check_file(folder: Path, record: FileRecord, *, whole: bool = True) -> None:
    """Check a file against the manifest: its length, and with ``whole`` its hash.

    Raises:
        IndexDamaged: If it differs.
    """
    path = folder / record.name
    try:
        length = path.stat().st_size
        if length != record.bytes:
            raise IndexDamaged(
                f"{path} is damaged: {length} bytes instead of {record.bytes}; "
                "restore it, or build again"
            )
        if whole and sha256_of(path) != record.sha256:
            raise IndexDamaged(
                f"{path} is damaged: its content has changed; restore it, or build again"
            )
    except OSError as error:
        raise IndexDamaged(f"{path} cannot be read: {error.strerror}; restore or rebuild") from None


def read_images(folder: Path, manifest: Manifest) -> ImageTable:
    """Read the table of images and check it against the manifest."""
    record = manifest.images.table
    check_file(folder, record)
    table = read_table(folder, record, count=manifest.images.count)
    stored = {shard.number: shard.images for shard in manifest.shards}
    limits = np.array([stored.get(number, 0) for number in table.shards.tolist()], np.int64)
    if ((table.slots >= limits) & ~table.broken).any():
        raise IndexDamaged(f"{folder / record.name} names places that no shard has; build again")
    if int(table.broken.sum()) != manifest.images.broken:
        raise IndexDamaged(f"{folder / record.name} counts broken images otherwise; build again")
    return table


def read_shard(
    folder: Path, manifest: Manifest, record: ShardRecord, rows: npt.NDArray[np.int64]
) -> Shard:
    """Read one shard, its vectors memory-mapped.

    Nothing is taken from a file before its shape, as the manifest has it, fits its length: a
    hostile header can ask for no memory, and pickles are never loaded.
    """
    regions, quantized = record.regions, manifest.dtype == "int8"
    wanted: dict[str, tuple[str, tuple[int, ...]]] = {
        "offsets": ("int64", (record.images + 1,)),
        "boxes": ("float16", (regions, 4)),
        "mass": ("float32", (regions,)),
    }
    if quantized:
        wanted["scales"] = ("float32", (regions,))
    path = folder / record.vectors.name
    try:
        vectors = _map_array(path, manifest.dtype, (regions, manifest.encoder.dim))
        path = folder / record.layout.name
        layout = _unpack(path.read_bytes(), wanted)
        if not all(np.isfinite(layout[name]).all() for name in wanted):
            raise ValueError("a number is not finite")
        return Shard(
            vectors=vectors,
            scales=layout.get("scales"),
            offsets=layout["offsets"],
            boxes=layout["boxes"],
            mass=layout["mass"],
            rows=rows,
        )
    except (OSError, ValueError, HardmineError) as error:
        raise IndexDamaged(f"{path} is damaged ({error}); restore it, or build again") from None


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """What stands before the values of an .npy file, as NumPy writes it today.

    Written here, so that the bytes of an index do not change with NumPy, and so that a reader
    need not parse what a stranger wrote: it knows what must stand there.
    """
    text = f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def _check_header(found: bytes, length: int, dtype: str, shape: tuple[int, ...]) -> int:
    """Position of the first value, once header and length are what they must be."""
    header = _header(dtype, shape)
    if found[: len(header)] != header:
        raise ValueError(f"it does not begin as an array of {shape} {dtype} does")
    needed = len(header) + np.dtype(dtype).itemsize * math.prod(shape)
    if needed != length:
        raise ValueError(f"{shape} {dtype} take {needed} bytes, it has {length}")
    return len(header)


def _map_array(path: Path, dtype: str, shape: tuple[int, int]) -> npt.NDArray[Any]:
    with path.open("rb") as file:
        start = _check_header(file.read(_HEADER), path.stat().st_size, dtype, shape)
    if 0 in shape:
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, mode="r", offset=start, shape=shape)


def _pack(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # An entry made like this is dated 1980: equal arrays give equal bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(entry, _header(array.dtype.name, array.shape) + array.tobytes())
    return packed.getvalue()


def _unpack(
    content: bytes, wanted: dict[str, tuple[str, tuple[int, ...]]]
) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            if sorted(entry.filename for entry in entries) != sorted(f"{n}.npy" for n in wanted):
                raise ValueError(f"it holds {[entry.filename for entry in entries]}")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, which hardmine never does")
            for name, (dtype, shape) in wanted.items():
                member = archive.read(f"{name}.npy")
                start = _check_header(member, len(member), dtype, shape)
                arrays[name] = np.frombuffer(member, dtype, offset=start).reshape(shape)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(str(error)) from None
    return arrays


def _rows_by_shard(
    manifest: Manifest, table: ImageTable, kept: npt.NDArray[np.int64]
) -> dict[int, npt.NDArray[np.int64]]:
    shards, slots = table.shards[kept], table.slots[kept]
    order = np.argsort(shards, kind="stable")
    numbers = [shard.number for shard in manifest.shards]
    starts = np.searchsorted(shards[order], [*numbers, np.iinfo(np.int32).max])
    rows = {}
    for record, start, stop in zip(manifest.shards, starts[:-1], starts[1:], strict=True):
        # A count beyond what the layout file can hold would otherwise ask for the memory.
        if (record.images + 1) * 8 > record.layout.bytes:
            raise IndexDamaged(
                f"{record.layout.name} is damaged: it cannot hold {record.images} images"
            )
        mine = order[start:stop]
        rows[record.number] = np.full(record.images, -1, np.int64)
        rows[record.number][slots[mine]] = mine
    return rows

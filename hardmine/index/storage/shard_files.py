"""Writes and reads the two files of a shard."""

from __future__ import annotations

import hashlib
import io
import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import HardmineError
from hardmine.index.storage.files import FileRecord, damaged, write_durably
from hardmine.index.storage.manifest import Manifest, ShardRecord, layout_name, vectors_name
from hardmine.index.storage.mapped import map_file
from hardmine.index.storage.store import Shard, UnreadShard

_HEADER = 128  # bytes before the values of every array
# dtype and shape of each array of a layout file.
_Layout = dict[str, tuple[str, tuple[int, ...]]]


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
        vectors: Its (R, D) vectors in pieces, in order.
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


def map_shard(
    folder: Path, manifest: Manifest, record: ShardRecord, rows: npt.NDArray[np.int64]
) -> UnreadShard:
    """Map both files of a shard; its layout is checked and held against its hash on first use.

    The manifest gives the shapes, and each file must have the length that they need: a hostile
    header cannot allocate memory. Nothing is unpickled.
    """
    regions = record.regions
    expected: _Layout = {
        "offsets": ("int64", (record.images + 1,)),
        "boxes": ("float16", (regions, 4)),
        "mass": ("float32", (regions,)),
    }
    if manifest.dtype == "int8":
        expected["scales"] = ("float32", (regions,))
    path = folder / record.vectors.name
    try:
        vectors = map_array(path, manifest.dtype, (regions, manifest.encoder.dim))
        path = folder / record.layout.name
        content = map_file(path)
        if len(content) != record.layout.bytes:
            raise ValueError(f"expected {record.layout.bytes} bytes, got {len(content)}")
    except (OSError, ValueError) as error:
        raise damaged(path, error) from None

    def read(rows: npt.NDArray[np.int64]) -> Shard:
        layout_bytes = content.tobytes()
        try:
            if hashlib.sha256(layout_bytes).hexdigest() != record.layout.sha256:
                raise ValueError("its content has changed")
            layout = _unpack(layout_bytes, expected)
            for name in expected:
                if not np.isfinite(layout[name]).all():
                    raise ValueError(f"{name} holds NaN or infinity")
            return Shard(
                vectors=vectors,
                scales=layout.get("scales"),
                offsets=layout["offsets"],
                boxes=layout["boxes"],
                mass=layout["mass"],
                rows=rows,
            )
        except (ValueError, HardmineError) as error:
            raise damaged(path, error) from None

    return UnreadShard(vectors, rows, read)


def write_array(folder: Path, name: str, array: npt.NDArray[Any]) -> FileRecord:
    """Write one contiguous array as an .npy file, atomically."""
    chunks = [_header(array.dtype.name, array.shape), *([array] if array.size else [])]
    return write_durably(folder, name, chunks, scratch=folder)


def _header(dtype: str, shape: tuple[int, ...]) -> bytes:
    """Header of an .npy file, as NumPy 2 writes it.

    Written here, so that the bytes of an index do not depend on NumPy's version, and so that a
    reader compares the header instead of parsing it.
    """
    text = f"{{'descr': {np.dtype(dtype).str!r}, 'fortran_order': False, 'shape': {shape}, }}"
    return b"\x93NUMPY\x01\x00" + (118).to_bytes(2, "little") + text.ljust(117).encode() + b"\n"


def _check_header(content: bytes, length: int, dtype: str, shape: tuple[int, ...]) -> int:
    """Check header and length of an array; return the position of its first value."""
    header = _header(dtype, shape)
    if content[: len(header)] != header:
        raise ValueError(f"expected the header of a {shape} {dtype} array")
    needed = len(header) + np.dtype(dtype).itemsize * math.prod(shape)
    if needed != length:
        raise ValueError(f"a {shape} {dtype} array has {needed} bytes, got {length}")
    return len(header)


def map_array(path: Path, dtype: str, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    """Memory-map an .npy file that must hold an array of this dtype and shape.

    Raises:
        OSError: If it cannot be read.
        ValueError: If its header or length differs.
    """
    content = map_file(path)
    start = _check_header(content[:_HEADER].tobytes(), len(content), dtype, shape)
    return content[start:].view(dtype).reshape(shape)


def _pack(arrays: dict[str, npt.NDArray[Any]]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            # A ZipInfo without a date is dated 1980, so that equal arrays give equal bytes.
            entry = zipfile.ZipInfo(f"{name}.npy")
            archive.writestr(entry, _header(array.dtype.name, array.shape) + array.tobytes())
    return packed.getvalue()


def _unpack(content: bytes, expected: _Layout) -> dict[str, npt.NDArray[Any]]:
    arrays = {}
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = archive.infolist()
            names = sorted(entry.filename for entry in entries)
            if names != sorted(f"{name}.npy" for name in expected):
                raise ValueError(f"expected the arrays {', '.join(expected)}, got {names}")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise ValueError("it is compressed, which hardmine never does")
            for name, (dtype, shape) in expected.items():
                member = archive.read(f"{name}.npy")
                start = _check_header(member, len(member), dtype, shape)
                arrays[name] = np.frombuffer(member, dtype, offset=start).reshape(shape)
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, EOFError) as error:
        raise ValueError(str(error)) from None
    return arrays

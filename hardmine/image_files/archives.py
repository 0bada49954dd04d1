"""Reads images that lie inside a tar or parquet file, by a path that goes on into the file.

``shards/0001.tar/a.jpg`` is a member of a tar file, as WebDataset writes them.
``data/train-0.parquet/17`` is row 17 of a parquet file with a column of images, as Hugging Face
writes them. Nothing is ever unpacked to disk. Of a file that has an address, the parts needed are
fetched.
"""

from __future__ import annotations

import tarfile
import threading
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.addresses import Address
from hardmine.errors import InputError

_ROW_GROUPS = 4  # kept in memory: threads that read ahead are in neighbouring ones
_lock = threading.Lock()


def archive_of(path: Path) -> Path | None:
    """The tar or parquet file that a path leads into; None if it leads into none."""
    for parent in path.parents:
        # A host is not asked for each image: no folder there is named like an archive.
        if parent.suffix.lower() in (".tar", ".parquet") and (
            isinstance(parent, Address) or parent.is_file()
        ):
            return parent
    return None


def read_member(archive: Path, path: Path) -> bytes:
    """The bytes of one image.

    Raises:
        InputError: If the archive has no such image, or cannot be read.
    """
    name = path.relative_to(archive).as_posix()
    time = archive.stat().st_mtime_ns
    if archive.suffix.lower() == ".tar":
        return _read_tar(archive, time, name)
    return _read_parquet(archive, time, name)


def tar_members(archive: Path) -> dict[str, tuple[int, int]]:
    """Start and length of each file in an uncompressed tar file, by name."""
    try:
        with archive.open("rb") as opened, tarfile.open(fileobj=opened, mode="r:") as file:
            return {
                entry.name.removeprefix("./"): (entry.offset_data, entry.size)
                for entry in file
                if entry.isreg() and not entry.issparse()
            }
    except (tarfile.TarError, OSError) as error:
        raise InputError(
            f"{archive}: cannot be read as a tar file: {error}; a compressed one must be unpacked"
        ) from None


def image_column(archive: Path) -> tuple[str, int]:
    """Name of the column with the images of a parquet file, and its number of rows.

    Raises:
        InputError: If it has none, or several.
    """
    import pyarrow as pa

    try:
        file = parquet_file(archive)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{archive}: cannot be read as a parquet file: {error}") from None
    schema = file.schema_arrow
    found = [
        field.name
        for field in schema
        if pa.types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0
    ] or [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]
    if len(found) != 1:
        raise InputError(
            f"{archive}: expected one column of images (a struct with 'bytes', or binary), "
            f"found {', '.join(found) or 'none'} among {', '.join(schema.names)}"
        )
    return found[0], file.metadata.num_rows


def parquet_file(archive: Path) -> Any:
    """Open a parquet file with pyarrow."""
    import pyarrow.parquet as pq

    return pq.ParquetFile(archive.open("rb") if isinstance(archive, Address) else archive)


@lru_cache(maxsize=256)
def _members(archive: Path, time: int) -> dict[str, tuple[int, int]]:
    return tar_members(archive)


def _read_tar(archive: Path, time: int, name: str) -> bytes:
    with _lock:
        place = _members(archive, time).get(name)
    if place is None:
        raise InputError(f"{archive / name}: the tar file has no such image")
    start, length = place
    if isinstance(archive, Address):
        return archive.read_from(start, length)
    with archive.open("rb") as file:
        file.seek(start)
        return file.read(length)


@lru_cache(maxsize=256)
def _row_groups(archive: Path, time: int) -> tuple[str, npt.NDArray[np.int64]]:
    """Name of the column of images, and the first row of each row group, with the end."""
    column, _ = image_column(archive)
    metadata = parquet_file(archive).metadata
    lengths = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
    return column, np.cumsum([0, *lengths])


@lru_cache(maxsize=_ROW_GROUPS)
def _row_group(archive: Path, time: int, column: str, group: int) -> Any:
    import pyarrow as pa

    images = parquet_file(archive).read_row_group(group, columns=[column])[column]
    if pa.types.is_struct(images.type):
        images = images.combine_chunks().field("bytes")
    return images


def _read_parquet(archive: Path, time: int, name: str) -> bytes:
    with _lock:
        column, starts = _row_groups(archive, time)
    row = int(name) if name.isdecimal() else -1
    if not 0 <= row < starts[-1]:
        raise InputError(
            f"{archive / name}: expected a row from 0 to {starts[-1] - 1} after the file's name"
        )
    group = int(np.searchsorted(starts, row, side="right")) - 1
    with _lock:
        images = _row_group(archive, time, column, group)
    content = images[row - int(starts[group])].as_py()
    if content is None:
        raise InputError(f"{archive / name}: the row holds no bytes of an image")
    return bytes(content)

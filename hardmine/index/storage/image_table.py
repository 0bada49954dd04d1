"""``images-N.parquet``: the images of an index, the state of their files, their shard and slot."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hardmine.errors import IndexDamaged
from hardmine.index.storage.files import FileRecord, write_durably

BROKEN = -1  # shard and slot of an image that could not be read
# Absolute paths, paths on a drive and paths with "..", as any operating system writes them.
_OUTSIDE = re.compile(r"^$|^[/\\]|^[A-Za-z]:[/\\]|(?:^|[/\\])\.\.(?:[/\\]|$)|\x00")
_COLUMNS = {
    "path": pa.string(),
    "height": pa.int32(),
    "width": pa.int32(),
    "bytes": pa.int64(),
    "mtime_ns": pa.int64(),
    "sha256": pa.string(),
    "problem": pa.string(),
    "shard": pa.int32(),
    "slot": pa.int32(),
}


class FileFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """State of an image's file when it was read.

    Attributes:
        height: In pixels, after the rotation in its EXIF; 0 if it could not be read.
        width: The same.
        bytes: Length of the file; -1 if it was missing.
        mtime_ns: Its modification time in ns; -1 if it was missing.
        sha256: SHA-256 of its content; empty if it was missing.
        problem: Why it could not be read; empty if it could.
    """

    height: int
    width: int
    bytes: int
    mtime_ns: int
    sha256: str
    problem: str = ""


@dataclass(frozen=True)
class ImageTable:
    """N images in the order of the data set, broken ones included.

    Attributes:
        ids: (N,) int64 or str, unique.
        paths: N paths below the data set's folder.
        facts: State of their N files.
        shards: (N,) int32 number of the shard that holds each image, ``BROKEN`` for none.
        slots: (N,) int32 position among the images of that shard, ``BROKEN`` for none.
    """

    ids: npt.NDArray[Any]
    paths: tuple[str, ...]
    facts: tuple[FileFacts, ...]
    shards: npt.NDArray[np.int32]
    slots: npt.NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def broken(self) -> npt.NDArray[np.bool_]:
        """(N,) True for images that could not be read."""
        return cast(npt.NDArray[np.bool_], self.shards == BROKEN)

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width."""
        pairs = [(fact.height, fact.width) for fact in self.facts]
        return np.array(pairs, np.int32).reshape(-1, 2)


def write_table(folder: Path, name: str, table: ImageTable, *, scratch: Path) -> FileRecord:
    """Write the table of images; equal tables give equal bytes."""
    text = table.ids.dtype.kind in "USO"
    columns: dict[str, Sequence[Any]] = {
        "id": table.ids.tolist(),
        "path": table.paths,
        "shard": table.shards.tolist(),
        "slot": table.slots.tolist(),
    }
    for field in FileFacts.__struct_fields__:
        columns[field] = [getattr(fact, field) for fact in table.facts]
    schema = _schema(pa.string() if text else pa.int64())
    sink = io.BytesIO()
    pq.write_table(
        pa.table({name: columns[name] for name in schema.names}, schema=schema),
        sink,
        # Plain values only: a reader then knows that a short file cannot become a huge table.
        compression="none",
        use_dictionary=False,
        write_statistics=False,
    )
    return write_durably(folder, name, [sink.getbuffer()], scratch=scratch)


def read_table(folder: Path, record: FileRecord, *, count: int) -> ImageTable:
    """Read the table of images.

    Args:
        folder: The index.
        record: The table's file.
        count: Number of images that it must list.

    Raises:
        IndexDamaged: If ``write_table`` cannot have written it, or its values are inconsistent.
    """
    path = folder / record.name
    try:
        file = pq.ParquetFile(path)
        _check_frame(file.metadata, count, record.bytes)
        schema = file.schema_arrow.remove_metadata()
        if schema not in (_schema(pa.int64()), _schema(pa.string())):
            raise ValueError(f"unexpected columns {', '.join(schema.names)}")
        texts = [field.name for field in schema if field.type == pa.string()]
        columns = _read_columns(path, texts, record.bytes)
        if any(column.null_count for column in columns.columns):
            raise ValueError("it has empty cells")
        table = _from_columns(columns)
        _check_values(table)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise IndexDamaged(f"{path} is damaged ({error}); restore it, or build again") from None
    return table


def _schema(id_type: pa.DataType) -> pa.Schema:
    fields = [pa.field("id", id_type), *(pa.field(*column) for column in _COLUMNS.items())]
    return pa.schema(fields)


def _check_frame(metadata: Any, count: int, length: int) -> None:
    if metadata.num_rows != count:
        raise ValueError(f"it lists {metadata.num_rows} images, the manifest says {count}")
    # A plain row has far more than 8 bytes.
    if count * 8 > length:
        raise ValueError(f"{length} bytes cannot hold {count} images")
    # Codec and pages of the columns stay unread: if they are hostile, pyarrow aborts the process
    # instead of raising.
    groups = (metadata.row_group(group) for group in range(metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > length:
        raise ValueError("it is compressed, which hardmine never does")


def _read_columns(path: Path, texts: list[str], length: int) -> pa.Table:
    """Read all columns, texts as dictionaries, so that a repeated text costs no memory."""
    columns = pq.ParquetFile(path, read_dictionary=texts).read()
    total = 0
    for name in texts:
        for chunk in columns[name].chunks:
            if pa.types.is_dictionary(chunk.type):
                lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
                total += pc.sum(lengths).as_py() or 0
    if total > length:
        raise ValueError("it is compressed, which hardmine never does")
    return columns


def _from_columns(columns: pa.Table) -> ImageTable:
    ids = columns["id"].to_pylist()
    lists = [columns[field].to_pylist() for field in FileFacts.__struct_fields__]
    return ImageTable(
        ids=np.array(ids, np.int64 if columns["id"].type == pa.int64() else np.str_),
        paths=tuple(columns["path"].to_pylist()),
        facts=tuple(FileFacts(*values) for values in zip(*lists, strict=True)),
        shards=columns["shard"].to_numpy(),
        slots=columns["slot"].to_numpy(),
    )


def _check_values(table: ImageTable) -> None:
    if len(np.unique(table.ids)) != len(table):
        raise ValueError("image ids are not unique")
    for path in table.paths:
        check_path(path)
    broken = table.broken
    has_problem = np.array([fact.problem != "" for fact in table.facts], bool)
    if not np.array_equal(broken, has_problem) or (table.slots[broken] != BROKEN).any():
        raise ValueError("an image is marked both broken and stored, or neither")
    shards, slots = table.shards[~broken].astype(np.int64), table.slots[~broken]
    if (
        (shards < 0).any()
        or (slots < 0).any()
        or len(np.unique(shards << 32 | slots)) != len(slots)
    ):
        raise ValueError("two images share a slot, or a slot is negative")
    if (table.sizes < 0).any():
        raise ValueError("an image has a negative size")


def check_path(path: str) -> None:
    """Refuse a path that leads out of the data set's folder.

    Raises:
        ValueError: If it is empty, absolute (on any system), or holds ``..`` or a NUL.
    """
    if _OUTSIDE.search(path):
        raise ValueError(f"the path {path!r} is not below the folder of the images")

"""``images-N.parquet``: the images of an index, the state of their files, their shard and slot."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast, overload

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from hardmine.index.storage.columns import TextColumn, as_numpy
from hardmine.index.storage.files import FileRecord, damaged, write_durably
from hardmine.index.storage.mapped import map_file

BROKEN = -1  # shard and slot of an image that could not be read
# Rows written at a time, so that writing needs little memory.
_ROWS = 1 << 16
# Absolute paths, paths on a drive and paths with "..", as any operating system writes them. Arrow's
# RE2 and Python's re read it alike.
_OUTSIDE = r"^$|^[/\\]|^[A-Za-z]:[/\\]|(?:^|[/\\])\.\.(?:[/\\]|$)|\x00"
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

# Columns that opening an index does not need: an update does, and whoever shows images.
_LATER = ("bytes", "mtime_ns", "sha256")
_PATH = "path"
_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)


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


@dataclass(frozen=True, eq=False)
class FactColumns(Sequence[FileFacts]):
    """States of N files. All become Python objects when the first is asked for.

    Attributes:
        columns: Arrow's table, with columns for those fields of ``FileFacts`` not in ``_LATER``.
        read_later: Reads columns of ``_LATER``.
    """

    columns: Any
    read_later: Callable[[Sequence[str]], Any]

    def __len__(self) -> int:
        return len(self.columns)

    @overload
    def __getitem__(self, place: int) -> FileFacts: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[FileFacts]: ...

    def __getitem__(self, place: int | slice) -> FileFacts | Sequence[FileFacts]:
        return self._facts[place]

    def __iter__(self) -> Iterator[FileFacts]:
        return iter(self._facts)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and self._facts == tuple(other)

    @property
    def sizes(self) -> npt.NDArray[np.int32]:
        """(N, 2) height and width."""
        sides = [as_numpy(self.columns[name]) for name in ("height", "width")]
        return np.stack(sides, axis=1).astype(np.int32)

    def lengths(self, rows: Sequence[int]) -> list[int]:
        """Length of some of the files when they were read; -1 if it was missing."""
        found: list[int] = self.read_later(["bytes"])["bytes"].take(list(rows)).to_pylist()
        return found

    @cached_property
    def _facts(self) -> tuple[FileFacts, ...]:
        later = self.read_later(_LATER)
        lists = [
            (later if name in _LATER else self.columns)[name].to_pylist()
            for name in FileFacts.__struct_fields__
        ]
        return tuple(FileFacts(*values) for values in zip(*lists, strict=True))


@dataclass(frozen=True)
class ImageTable:
    """N images in the order of the data set, broken ones included.

    Attributes:
        ids: (N,) int64 or str, unique.
        paths: N paths below the data set's folder.
        facts: State of their N files. Of a table that was read, they become objects on first use.
        shards: (N,) int32 number of the shard that holds each image, ``BROKEN`` for none.
        slots: (N,) int32 position among the images of that shard, ``BROKEN`` for none.
    """

    ids: npt.NDArray[Any]
    paths: Sequence[str]
    facts: Sequence[FileFacts]
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
        if isinstance(self.facts, FactColumns):
            return self.facts.sizes
        pairs = [(fact.height, fact.width) for fact in self.facts]
        return np.array(pairs, np.int32).reshape(-1, 2)

    def paths_of(self, rows: npt.NDArray[np.int64]) -> Sequence[str]:
        """Paths of some images."""
        if isinstance(self.paths, TextColumn):
            return self.paths.take(rows)
        return tuple(self.paths[row] for row in rows.tolist())


def write_table(folder: Path, name: str, table: ImageTable, *, scratch: Path) -> FileRecord:
    """Write the table of images; equal tables give equal bytes."""
    return write_durably(folder, name, _parquet(table), scratch=scratch)


def _parquet(table: ImageTable) -> Iterator[bytes]:
    """The bytes of the file in pieces, of some rows each."""
    schema = _schema(pa.string() if table.ids.dtype.kind in "USO" else pa.int64())
    sink = _Sink()
    # Plain values only: a reader then knows that a short file cannot become a huge table.
    writer = pq.ParquetWriter(
        sink, schema, compression="none", use_dictionary=False, write_statistics=False
    )
    for start in range(0, max(len(table), 1), _ROWS):
        part = slice(start, start + _ROWS)
        columns: dict[str, Sequence[Any]] = {
            "id": table.ids[part].tolist(),
            "path": table.paths[part],
            "shard": table.shards[part].tolist(),
            "slot": table.slots[part].tolist(),
        }
        facts = table.facts[part]
        for field in FileFacts.__struct_fields__:
            columns[field] = [getattr(fact, field) for fact in facts]
        arrays = [pa.array(columns[field.name], field.type) for field in schema]
        writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
        yield sink.take()
    writer.close()
    yield sink.take()


class _Sink(io.RawIOBase):
    """A file to write to that hands on what was written, instead of keeping it."""

    def __init__(self) -> None:
        self._written, self._position = io.BytesIO(), 0

    def writable(self) -> bool:
        """True: Arrow asks."""
        return True

    def write(self, content: Any) -> int:
        """Take bytes."""
        self._position += len(content)
        return self._written.write(content)

    def tell(self) -> int:
        """Bytes written since the beginning."""
        return self._position

    def take(self) -> bytes:
        """Bytes written since the last call."""
        content = self._written.getvalue()
        self._written = io.BytesIO()
        return content


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

    def read(names: Sequence[str]) -> pa.Table:
        try:
            columns = _read_columns(content, names, record.bytes)
            if len(columns) != count:
                raise ValueError(f"it has {len(columns)} rows, the manifest says {count}")
            return columns
        except _ERRORS as error:
            raise damaged(path, error) from None

    def read_paths() -> Any:
        paths = read([_PATH])[_PATH]
        outside = pc.match_substring_regex(paths, _OUTSIDE)
        try:
            if pc.any(outside).as_py():
                check_path(paths.filter(outside)[0].as_py())
        except ValueError as error:
            raise damaged(path, error) from None
        return paths

    try:
        content = map_file(path)
        file = pq.ParquetFile(pa.BufferReader(content))
        _check_frame(file.metadata, count, record.bytes)
        schema = file.schema_arrow.remove_metadata()
        if schema not in (_schema(pa.int64()), _schema(pa.string())):
            raise ValueError(f"unexpected columns {', '.join(schema.names)}")
        columns = read([name for name in schema.names if name not in (*_LATER, _PATH)])
        ids = columns["id"]
        table = ImageTable(
            ids=as_numpy(ids) if ids.type == pa.int64() else np.array(ids.to_pylist(), np.str_),
            paths=TextColumn(read_paths, count),
            facts=FactColumns(columns, read),
            shards=as_numpy(columns["shard"]),
            slots=as_numpy(columns["slot"]),
        )
        _check_values(columns, table)
    except _ERRORS as error:
        raise damaged(path, error) from None
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


def _read_columns(content: Any, names: Sequence[str], length: int) -> pa.Table:
    """Read some columns, texts as dictionaries, so that a repeated text costs no memory."""
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=list(names))
    columns = file.read(columns=list(names))
    if any(column.null_count for column in columns.columns):
        raise ValueError("it has empty cells")
    texts = [field.name for field in columns.schema if pa.types.is_dictionary(field.type)]
    total = 0
    for name in texts:
        for chunk in columns[name].chunks:
            lengths = pc.binary_length(chunk.dictionary).take(chunk.indices)
            total += pc.sum(lengths).as_py() or 0
    if total > length:
        raise ValueError("it is compressed, which hardmine never does")
    for name in texts:
        plain = columns[name].cast(pa.string())
        plain.validate(full=True)  # that it is UTF-8
        columns = columns.set_column(columns.schema.get_field_index(name), name, plain)
    return columns


def _check_values(columns: pa.Table, table: ImageTable) -> None:
    if not are_unique(table.ids):
        raise ValueError("image ids are not unique")
    broken = table.broken
    has_problem = as_numpy(pc.binary_length(columns["problem"])) > 0
    if not np.array_equal(broken, has_problem) or (table.slots[broken] != BROKEN).any():
        raise ValueError("an image is marked both broken and stored, or neither")
    shards, slots = table.shards[~broken].astype(np.int64), table.slots[~broken]
    if (shards < 0).any() or (slots < 0).any() or not are_unique(shards << 32 | slots):
        raise ValueError("two images share a slot, or a slot is negative")
    if (table.sizes < 0).any():
        raise ValueError("an image has a negative size")


def are_unique(values: npt.NDArray[Any]) -> bool:
    """Whether no number or text is there twice."""
    if values.dtype.kind == "U":
        return int(pc.count_distinct(pa.array(values)).as_py()) == len(values)
    # Sorted, as np.unique of whole numbers takes ten times as long.
    ordered = np.sort(values)
    return not (ordered[1:] == ordered[:-1]).any()


def check_path(path: str) -> None:
    """Refuse a path that leads out of the data set's folder.

    Raises:
        ValueError: If it is empty, absolute (on any system), or holds ``..`` or a NUL.
    """
    if re.search(_OUTSIDE, path):
        raise ValueError(f"the path {path!r} is not below the folder of the images")

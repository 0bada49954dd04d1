"""A column of texts, read when it is first needed, so that a million take no time to open."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc


def as_numpy(column: Any) -> npt.NDArray[Any]:
    """A column of whole numbers, none of them missing, as NumPy has it.

    Arrow's own ``to_numpy`` imports pandas.
    """
    values = column.combine_chunks()
    dtype = np.dtype(values.type.to_pandas_dtype())
    if len(values) == 0:
        return np.zeros(0, dtype)
    start = values.offset * dtype.itemsize
    return np.frombuffer(values.buffers()[1], dtype, count=len(values), offset=start)


# Texts that become Python objects at a time while all are iterated over.
_ROWS = 1 << 16


class TextColumn(Sequence[str]):
    """N texts. One becomes a Python object when it is asked for.

    Args:
        read: Reads Arrow's column of strings; called when a text is first needed.
        length: N.
    """

    def __init__(self, read: Callable[[], Any], length: int) -> None:
        self._read, self._length = read, length

    @classmethod
    def of(cls, column: Any) -> TextColumn:
        """The texts of a column that has been read."""
        return cls(lambda: column, len(column))

    @cached_property
    def _column(self) -> Any:
        return self._read()

    def read(self) -> None:
        """Read the texts, if they have not been read yet."""
        _ = self._column

    def __len__(self) -> int:
        return self._length

    def __reduce__(self) -> tuple[Callable[[Any], TextColumn], tuple[Any]]:
        return TextColumn.of, (self._column,)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> Sequence[str]: ...

    def __getitem__(self, place: int | slice) -> str | Sequence[str]:
        if isinstance(place, slice):
            return tuple(self._column[place].to_pylist())
        return str(self._column[int(place)].as_py())

    def __iter__(self) -> Iterator[str]:
        for start in range(0, len(self), _ROWS):
            yield from self._column.slice(start, _ROWS).to_pylist()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"TextColumn of {len(self)}"

    @classmethod
    def joined(cls, columns: Sequence[Sequence[str]], folders: Sequence[str]) -> TextColumn:
        """Paths of several lists, one list after the other, each below a folder or "" for none."""

        def read() -> Any:
            chunks: list[Any] = []
            for column, folder in zip(columns, folders, strict=True):
                texts = (
                    column._read()
                    if isinstance(column, TextColumn)
                    else pa.array(column, pa.string())
                )
                if folder:
                    texts = pc.binary_join_element_wise(folder, texts, "/")
                chunks += texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]
            return pa.chunked_array(chunks, pa.string())

        return cls(read, sum(map(len, columns)))

    def take(self, rows: npt.NDArray[np.int64]) -> TextColumn:
        """The texts of some rows."""
        if len(rows) == len(self) and (rows == np.arange(len(self))).all():
            return self
        # Not pa.array, which imports pandas.
        places = pa.Array.from_buffers(
            pa.int64(), len(rows), [None, pa.py_buffer(np.ascontiguousarray(rows, np.int64))]
        )
        return TextColumn(lambda: self._read().take(places), len(rows))

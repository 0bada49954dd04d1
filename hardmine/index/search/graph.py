"""Keeps the graph of a faiss HNSW index beside the index, so that it is built once.

A graph is two plain arrays and a record with their hashes. faiss's own files are not used: their
reader takes pointers and sizes from the file. Here every link is checked before faiss follows it.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import faiss
import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.errors import HardmineError, IndexDamaged
from hardmine.index.search.blocks import ranges
from hardmine.index.storage.files import (
    FileRecord,
    explain_os_errors,
    read_regular,
    write_durably,
)
from hardmine.index.storage.read import check_file
from hardmine.index.storage.shard_files import map_array, write_array

log = logging.getLogger(__name__)

_RECORD, _LEVELS, _NEIGHBORS = "hnsw.json", "hnsw.levels.npy", "hnsw.neighbors.npy"
_MAX_RECORD = 1 << 16


class _Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ``hnsw.json`` holds: the index that the graph is of, its top, and the two arrays."""

    key: str
    entry_point: Annotated[int, msgspec.Meta(ge=0)]
    levels: FileRecord
    neighbors: FileRecord


class KeptGraph:
    """A place for the graph of one state of an index.

    Args:
        folder: Made when a graph is kept.
        key: Hash of the index's manifest; the graph of any other state is ignored.
    """

    def __init__(self, folder: Path, key: str) -> None:
        self._folder, self._key = folder, key

    def load(self, index: Any, count: int) -> bool:
        """Give an empty HNSW index the links of its ``count`` vectors, if they are kept here.

        The vectors themselves must then be added to ``index.storage``.
        """
        try:
            content = read_regular(self._folder / _RECORD, _MAX_RECORD)
            record = msgspec.json.decode(content, type=_Record)
            if record.key != self._key:
                return False
            levels, neighbors = self._read(record, count)
            tables = faiss.vector_to_array(index.hnsw.cum_nneighbor_per_level).astype(np.int64)
            offsets = _check_links(levels, neighbors, tables, record.entry_point)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, ValueError, IndexDamaged) as e:
            log.warning("%s is damaged (%s): the graph is built again", self._folder, e)
            return False
        graph = index.hnsw
        faiss.copy_array_to_vector(levels, graph.levels)
        faiss.copy_array_to_vector(offsets.astype(np.uint64), graph.offsets)
        faiss.copy_array_to_vector(neighbors, graph.neighbors)
        graph.entry_point = record.entry_point
        graph.max_level = int(levels[record.entry_point]) - 1
        index.ntotal = count
        return True

    def save(self, index: Any) -> None:
        """Keep the links of an HNSW index; a folder that cannot be written to is no error."""
        graph = index.hnsw
        levels = faiss.vector_to_array(graph.levels)
        neighbors = faiss.vector_to_array(graph.neighbors)
        try:
            with explain_os_errors(f"make {self._folder}"):
                self._folder.mkdir(exist_ok=True)
            record = _Record(
                key=self._key,
                entry_point=graph.entry_point,
                levels=write_array(self._folder, _LEVELS, levels),
                neighbors=write_array(self._folder, _NEIGHBORS, neighbors),
            )
            content = msgspec.json.encode(record)
            write_durably(self._folder, _RECORD, [content], scratch=self._folder)
        except HardmineError as error:
            log.info("the graph is not kept: %s", error)

    def _read(
        self, record: _Record, count: int
    ) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
        if (record.levels.name, record.neighbors.name) != (_LEVELS, _NEIGHBORS):
            raise ValueError("its files have unexpected names")
        check_file(self._folder, record.levels)
        check_file(self._folder, record.neighbors)
        links = max(record.neighbors.bytes - 128, 0) // 4
        return (
            np.asarray(map_array(self._folder / _LEVELS, "int32", (count,))),
            np.asarray(map_array(self._folder / _NEIGHBORS, "int32", (links,))),
        )


def _check_links(
    levels: npt.NDArray[np.int32],
    neighbors: npt.NDArray[np.int32],
    tables: npt.NDArray[np.int64],
    entry_point: int,
) -> npt.NDArray[np.int64]:
    """Refuse links that lead out of the arrays; return where the links of each vector begin.

    Args:
        levels: (N,) number of levels that each vector is on.
        neighbors: Links of all vectors, for each by level; -1 for none.
        tables: (L + 1,) links of a vector below each level.
        entry_point: The vector at which a search begins, on the highest level.
    """
    count = len(levels)
    if (levels < 1).any() or (levels >= len(tables)).any():
        raise ValueError("a vector is on no level, or on too many")
    if entry_point >= count or levels[entry_point] != levels.max():
        raise ValueError("the search does not begin on the highest level")
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(tables[levels])])
    if len(neighbors) != offsets[-1]:
        raise ValueError(f"expected {offsets[-1]} links, got {len(neighbors)}")
    if (neighbors < -1).any() or (neighbors >= count).any():
        raise ValueError("a link leads to no vector")
    for level in range(1, int(levels.max())):
        on_level = np.flatnonzero(levels > level)
        width = np.full(len(on_level), tables[level + 1] - tables[level])
        linked = neighbors[ranges(offsets[on_level] + tables[level], width)]
        if (levels[linked[linked >= 0]] <= level).any():
            raise ValueError("a link leads to a vector that is not on its level")
    return offsets

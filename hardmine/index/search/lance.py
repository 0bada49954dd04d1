"""Approximate search by LanceDB, whose table stays on disk: nothing is loaded to open it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from hardmine.errors import MissingExtra
from hardmine.index.search.approximate import ApproximateIndex
from hardmine.index.search.blocks import iter_blocks
from hardmine.index.storage.store import Store

try:
    import lancedb
    from lancedb.index import IvfRq
except ImportError:
    raise MissingExtra("lance", "a LanceDB index") from None

log = logging.getLogger(__name__)

# Regions written at a time.
_ROWS = 1 << 16
# Fewer regions are compared one by one, which is exact.
_MIN_REGIONS = 1 << 16
# Of a list, as LanceDB advises.
_LIST_REGIONS = 1 << 13
# Lists that are searched at least: all of a small index.
_MIN_LISTS = 64


class LanceIndex(ApproximateIndex):
    """Finds candidates by LanceDB and scores them exactly.

    A table holds the vector of each region and the row of its image. From 65,536 regions on it has
    inverted lists of codes of two bits a dimension (RaBitQ), whose best candidates LanceDB compares
    again by their vectors. Product quantization (IVF-PQ) took 15 times as long to make.

    Args:
        store: The images and their regions.
        folder: Where the table is kept, as it takes long to make; in memory if None.
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        super().__init__(store)
        # An empty index is never asked.
        self._table: Any = _open_table(store, self._total, folder) if self._total else None
        self._lists = _num_lists(self._total)

    def _first_depth(self, k: int) -> int:
        return 4 * k

    def _nearest(self, queries: npt.NDArray[np.float32], depth: int) -> list[npt.NDArray[np.int64]]:
        """Rows of the nearest regions; each query is asked alone.

        LanceDB adds up the distances of vectors that are asked together.
        """
        found = []
        for query in queries:
            if not query.any():  # no direction: cosine similarity is not defined
                found.append(np.zeros(0, np.int64))
                continue
            padded = np.pad(query, (0, _padding(self.dim)))
            search = self._table.search(padded, vector_column_name="vector").distance_type("cosine")
            if self._total >= _MIN_REGIONS:
                search = search.nprobes(max(self._lists // 16, _MIN_LISTS)).refine_factor(4)
            # The distance too: without it LanceDB prints a warning at each search.
            rows = search.limit(depth).select(["row", "_distance"]).to_arrow()["row"]
            found.append(np.asarray(rows.combine_chunks().to_numpy()))
        return found


def _open_table(store: Store, total: int, folder: Path | None) -> Any:
    """The table of a store: the one kept in the folder, or else a new one."""
    name = f"regions-{store.digest[:32]}" if store.digest else "regions"
    if folder is not None:
        try:
            database = lancedb.connect(folder)
            kept = set(database.list_tables().tables)
            for other in kept - {name}:
                database.drop_table(other)
            if name in kept:
                table = database.open_table(name)
                if _is_ready(table, store, total):
                    return table
                database.drop_table(name)
            return _make_table(database, name, store, total)
        except (OSError, RuntimeError) as error:
            log.info("the table of LanceDB is not kept: %s", error)
    return _make_table(lancedb.connect("memory://"), name, store, total)


def _is_ready(table: Any, store: Store, total: int) -> bool:
    """Whether a kept table is whole, and made as tables are now: the first had no padding."""
    return (
        table.count_rows() == total
        and table.schema.field("vector").type.list_size == store.dim + _padding(store.dim)
        and (total < _MIN_REGIONS or len(table.list_indices()) > 0)
    )


def _make_table(database: Any, name: str, store: Store, total: int) -> Any:
    vector = pa.list_(pa.float16(), store.dim + _padding(store.dim))
    schema = pa.schema([pa.field("row", pa.int64()), pa.field("vector", vector)])
    table = database.create_table(name, _batches(store, schema), schema=schema)
    if total >= _MIN_REGIONS:
        lists = IvfRq(distance_type="cosine", num_partitions=_num_lists(total), num_bits=2)
        table.create_index("vector", config=lists)
    return table


def _batches(store: Store, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for block in iter_blocks(store, _ROWS):
        vectors = block.vectors.numpy()
        if block.scales is not None:
            vectors = (vectors * block.scales[:, None]).astype(np.float16)
        padded = np.pad(vectors, ((0, 0), (0, _padding(store.dim))))
        columns = [
            pa.array(block.rows[block.owners]),
            pa.FixedSizeListArray.from_arrays(pa.array(padded.reshape(-1)), padded.shape[1]),
        ]
        yield pa.RecordBatch.from_arrays(columns, schema=schema)


def _padding(dim: int) -> int:
    """Zeros behind each vector: LanceDB's codes need a multiple of 8 dimensions."""
    return -dim % 8


def _num_lists(total: int) -> int:
    return max(1, total // _LIST_REGIONS)

"""Approximate search by a Milvus server, for those who run one."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import MissingExtra, Unreachable
from hardmine.index.search.approximate import ApproximateIndex
from hardmine.index.search.blocks import iter_blocks
from hardmine.index.storage.store import Store

try:
    from pymilvus import DataType, MilvusClient, MilvusException
except ImportError:
    raise MissingExtra("milvus", "a Milvus index") from None

log = logging.getLogger(__name__)

# Bytes of vectors sent at a time: a server takes messages of at most 64 MB.
_BYTES = 16 << 20
# The most that a server returns for one query.
_MAX_GROUPS = 16384


class MilvusIndex(ApproximateIndex):
    """Finds candidates in Milvus and scores them exactly.

    A collection holds the vector of each region and the row of its image. It is made where the
    server does not have it, which sends all vectors there, and stays. Its name tells the version of
    the index; collections of earlier versions are left to whoever keeps the server.

    Milvus returns one region an image (``group_by_field``): near-identical regions would crowd out
    other images.

    Args:
        store: The images and their regions.
        uri: Of the server; a path ending in ".db" is a file of Milvus Lite. ``MILVUS_TOKEN`` in the
            environment is its "user:password" or key.
    """

    def __init__(self, store: Store, uri: str) -> None:
        super().__init__(store)
        # A store in memory alone has no hash, and is sent anew.
        self._name = f"hardmine_{store.digest[:32] or uuid.uuid4().hex}"
        if self._total == 0:  # an empty index is never asked
            return
        with _explained():
            self._client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""))
            if self._client.has_collection(self._name):
                self._client.load_collection(self._name)
                if self._count() == self._total:
                    return
                self._client.drop_collection(self._name)
            self._send(store)

    @property
    def _max_depth(self) -> int:
        return min(self._total, _MAX_GROUPS)

    def _nearest(self, queries: npt.NDArray[np.float32], depth: int) -> list[npt.NDArray[np.int64]]:
        """Rows of the images of the nearest regions, each once."""
        found = [np.zeros(0, np.int64)] * len(queries)
        asked = np.flatnonzero(queries.any(axis=1))  # zeros have no direction
        if len(asked):
            with _explained():
                hits = self._client.search(
                    self._name,
                    data=list(queries[asked]),
                    anns_field="vector",
                    limit=depth,
                    group_by_field="row",
                    output_fields=["row"],
                )
            for query, best in zip(asked.tolist(), hits, strict=True):
                found[query] = np.array([hit["entity"]["row"] for hit in best], np.int64)
        return found

    def _count(self) -> int:
        (counted,) = self._client.query(
            self._name, output_fields=["count(*)"], consistency_level="Strong"
        )
        return int(counted["count(*)"])

    def _send(self, store: Store) -> None:
        log.info("sending %d vectors to Milvus", self._total)
        schema = MilvusClient.create_schema()
        schema.add_field("region", DataType.INT64, is_primary=True)
        schema.add_field("row", DataType.INT64)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=store.dim)
        kind = self._client.prepare_index_params()
        kind.add_index("vector", index_type="AUTOINDEX", metric_type="COSINE")
        self._client.create_collection(
            self._name, schema=schema, index_params=kind, consistency_level="Strong"
        )
        sent = 0
        for block in iter_blocks(store, max(_BYTES // (4 * store.dim), 1)):
            vectors = block.vectors.float().numpy()
            if block.scales is not None:
                vectors = vectors * block.scales[:, None]
            rows: list[dict[str, Any]] = [
                {"region": sent + number, "row": row, "vector": vector}
                for number, (row, vector) in enumerate(
                    zip(block.rows[block.owners].tolist(), vectors, strict=True)
                )
            ]
            self._client.insert(self._name, rows)
            sent += len(rows)
        self._client.flush(self._name)


@contextmanager
def _explained() -> Iterator[None]:
    try:
        yield
    except MilvusException as error:
        raise Unreachable(
            f"Milvus cannot be reached, or refuses: {error.message}; check the address, the token "
            "and the server"
        ) from None

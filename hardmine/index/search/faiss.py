"""Approximate search by faiss, for single queries over very large indexes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError, MissingExtra
from hardmine.index.search.approximate import ApproximateIndex
from hardmine.index.search.blocks import iter_blocks
from hardmine.index.storage.store import Store

try:
    import faiss
except ImportError:
    raise MissingExtra("faiss", "a faiss index") from None

from hardmine.index.search.graph import KeptGraph

KINDS = ("flat", "ivfpq", "hnsw")
# Regions given to faiss at a time, which needs float32.
_ROWS = 65536
# Largest k of faiss on a GPU.
_GPU_LIMIT = 2048
_SEED = 0


class FaissIndex(ApproximateIndex):
    """Finds candidates by faiss and scores them exactly.

    The faiss index is built in memory by the constructor.

    Args:
        store: The images and their regions.
        kind: "flat" (all vectors, float32), "ivfpq" (inverted lists of D / 8 bytes a vector) or
            "hnsw" (a graph over float32 vectors).
        device: "cpu" keeps faiss on the CPU; None uses all GPUs that faiss sees.
        graph: Where the graph of "hnsw" is kept, as it takes long to build; None keeps nothing.
    """

    def __init__(
        self,
        store: Store,
        kind: str = "flat",
        device: str | None = None,
        graph: KeptGraph | None = None,
    ) -> None:
        super().__init__(store)
        if kind not in KINDS:
            raise InputError(
                f"kind of a faiss index must be one of {', '.join(KINDS)}, got {kind!r}"
            )
        self.kind = kind
        blocks = list(iter_blocks(store, _ROWS))
        counts = [np.diff(block.offsets) for block in blocks]
        self._owners = np.concatenate(
            [np.zeros(0, np.int64)]
            + [np.repeat(block.rows, count) for block, count in zip(blocks, counts, strict=True)]
        )
        total = len(self._owners)
        self._faiss = _empty_index(kind, store.dim, total)
        if not self._faiss.is_trained:
            self._faiss.train(self._sample(64 * 1024))
        keeps = graph if kind == "hnsw" and total else None
        kept = keeps is not None and keeps.load(self._faiss, total)
        target = self._faiss.storage if kept else self._faiss
        for block in blocks:
            target.add(_as_float32(block.vectors.numpy(), block.scales))
        if keeps is not None and not kept:
            keeps.save(self._faiss)
        self._on_gpu = device != "cpu" and getattr(faiss, "get_num_gpus", int)() > 0
        if self._on_gpu and kind != "hnsw":
            self._faiss = faiss.index_cpu_to_all_gpus(self._faiss)

    @property
    def _max_depth(self) -> int:
        return min(self._total, _GPU_LIMIT) if self._on_gpu else self._total

    def _first_depth(self, k: int) -> int:
        # Scores of quantized vectors are coarse: more candidates are needed.
        return max(16 * k, 256) if self.kind == "ivfpq" else 2 * k

    def _nearest(self, queries: npt.NDArray[np.float32], depth: int) -> list[npt.NDArray[np.int64]]:
        self._search_deeper(depth)
        _, numbers = self._faiss.search(queries, depth)
        return [self._owners[line[line >= 0]] for line in numbers]

    def _search_deeper(self, depth: int) -> None:
        """Set how much an approximate kind visits, so that it finds ``depth`` vectors."""
        if self.kind == "hnsw":
            self._faiss.hnsw.efSearch = max(64, 2 * depth)
        elif self.kind == "ivfpq":
            lists = _num_lists(len(self._owners))
            share = 4 * depth / len(self._owners)
            probes = min(max(lists // 16, math.ceil(share * lists), 16), lists)
            faiss.ParameterSpace().set_index_parameter(self._faiss, "nprobe", probes)

    def _sample(self, count: int) -> npt.NDArray[np.float32]:
        """About ``count`` regions from the whole store, to train on."""
        share = min(1.0, count / max(len(self._owners), 1))
        generator = np.random.default_rng(_SEED)
        parts = []
        for block in iter_blocks(self.store, _ROWS):
            size = len(block.vectors)
            chosen = np.sort(generator.permutation(size)[: math.ceil(share * size)])
            scales = None if block.scales is None else block.scales[chosen]
            parts.append(_as_float32(block.vectors.numpy()[chosen], scales))
        return np.concatenate(parts)


def _empty_index(kind: str, dim: int, total: int) -> Any:
    inner = faiss.METRIC_INNER_PRODUCT
    if kind == "flat" or total == 0:
        return faiss.IndexFlatIP(dim)
    if kind == "hnsw":
        graph = faiss.IndexHNSWFlat(dim, 32, inner)
        graph.hnsw.efConstruction = 80
        return graph
    parts = next(count for count in range(max(dim // 8, 1), 0, -1) if dim % count == 0)
    # A codebook needs several vectors per code.
    bits = min(8, max(1, int(math.log2(max(total / 4, 2)))))
    lists = faiss.IndexFlatIP(dim)
    index = faiss.IndexIVFPQ(lists, dim, _num_lists(total), parts, bits, inner)
    # Without this, faiss prints a warning for small sets, which only tests have.
    index.cp.min_points_per_centroid = index.pq.cp.min_points_per_centroid = 1
    return index


def _num_lists(total: int) -> int:
    """About 4 times the square root, as faiss advises, with at least 40 vectors per list."""
    return max(1, min(int(4 * math.sqrt(total)), total // 40))


def _as_float32(
    vectors: npt.NDArray[Any], scales: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32]:
    wide = np.ascontiguousarray(vectors, np.float32)
    return wide if scales is None else wide * scales[:, None]

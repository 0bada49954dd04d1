"""The exact search equals a brute force in float64 on any index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hardmine.index.search import exact, scan
from hardmine.index.search.exact import ExactIndex
from hardmine.index.search.product import can_multiply
from hardmine.index.storage.store import Shard, Store, quantize_rows

TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.int8)
DTYPES = [None, *(dtype for dtype in TYPES if can_multiply(dtype))]


@st.composite
def stores(draw: st.DrawFn) -> Store:
    """A few shards: ragged, some images removed, some without regions, some regions equal."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dim, int8 = draw(st.integers(1, 20)), draw(st.booleans())
    palette = rng.standard_normal((draw(st.integers(1, 30)), dim))
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    stored = [
        draw(st.lists(st.integers(0, 5), max_size=12)) for _ in range(draw(st.integers(0, 3)))
    ]
    removed = [rng.random(len(counts)) < 0.2 for counts in stored]
    total = sum(int((~gone).sum()) for gone in removed)
    order = iter(rng.permutation(total).tolist())
    shards = []
    for counts, gone in zip(stored, removed, strict=True):
        vectors = palette[rng.integers(0, len(palette), sum(counts))].astype(np.float32)
        kept, scales = quantize_rows(vectors) if int8 else (vectors.astype(np.float16), None)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        boxes = rng.random((len(vectors), 4)).astype(np.float32)
        rows = np.array([-1 if missing else next(order) for missing in gone], np.int64)
        shards.append(Shard(kept, scales, offsets, boxes, np.ones(len(boxes), np.float32), rows))
    ids, sizes = np.arange(total), np.zeros((total, 2), np.int32)
    return Store(Path(), ids, ("",) * total, sizes, dim, "", "none", tuple(shards))


def brute_force(store: Store, query: np.ndarray) -> np.ndarray:
    scores = np.full(len(store), -np.inf)
    for shard in store.shards:
        wide = shard.vectors.astype(np.float64)
        wide = wide if shard.scales is None else wide * shard.scales[:, None]
        for slot, row in enumerate(shard.rows.tolist()):
            regions = wide[shard.offsets[slot] : shard.offsets[slot + 1]]
            if row >= 0 and len(regions):
                scores[row] = (regions * query.astype(np.float64)).sum(axis=1).max()
    return scores.round(12)


@given(
    store=stores(),
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 4),
    k=st.integers(1, 40),
    dtype=st.sampled_from(DTYPES),
    budget=st.sampled_from([1, 20, 10_000]),
    share=st.sampled_from([None, 0.0, 0.5]),
    sampled=st.sampled_from([1, 2, 50]),
)
def test_search(
    store: Store,
    seed: int,
    count: int,
    k: int,
    dtype: torch.dtype | None,
    budget: int,
    share: float | None,
    sampled: int,
) -> None:
    rng = np.random.default_rng(seed)
    queries = rng.standard_normal((count, store.dim)).astype(np.float32)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    rows = None if share is None else np.flatnonzero(rng.random(len(store)) < share)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "_SCORES", budget)
        patch.setattr(scan, "_SCORES", budget)
        patch.setattr(scan, "_MAX_PENDING", budget)
        patch.setattr(scan, "_MIN_REGIONS", 10)
        patch.setattr(scan, "_SAMPLE_EVERY", sampled)
        patch.setattr(scan, "_MIN_RESULTS", 1)
        # Only int8 vectors are multiplied in int8.
        float16 = any(shard.scales is None for shard in store.shards)
        index = ExactIndex(store, dtype=None if float16 and dtype == torch.int8 else dtype)
        hits = index.search(queries, k, rows=rows)
        scores = index.scores(queries)
    for number, query in enumerate(queries):
        truth = brute_force(store, query)
        np.testing.assert_allclose(scores[number], truth, atol=1e-5)
        if rows is not None:
            truth[np.setdiff1d(np.arange(len(store)), rows)] = -np.inf
        best = np.lexsort((np.arange(len(store)), -truth))
        best = best[truth[best] > -np.inf][:k]
        width = min(k, max(len(store), 1))
        assert hits.image_rows[number].tolist() == best.tolist() + [-1] * (width - len(best))
        np.testing.assert_allclose(hits.scores[number, : len(best)], truth[best], atol=1e-6)

"""Scores in bfloat16: close to float64, and the same to the bit in any company."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store

DIM, QUERIES = 512, 300
RNG = np.random.default_rng(0)
SHARED = RNG.standard_normal(DIM) / DIM**0.5  # as the vectors of CLIP share a mean


def unit(count: int) -> np.ndarray:
    vectors = RNG.standard_normal((count, DIM)) / DIM**0.5 + SHARED
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_store() -> Store:
    """Images of equally many regions and not, without any, of very many, removed and moved."""
    counts = [[11] * 700, [3, 0, 5, 2500, 1] + [7] * 100, [4] * 50]
    rows = [np.arange(700), np.arange(804, 699, -1), np.arange(805, 855)]
    rows[2][-1] = -1
    shards = []
    for each, places in zip(counts, rows, strict=True):
        regions = sum(each)
        offsets = np.concatenate([[0], np.cumsum(each)])
        vectors, boxes = unit(regions).astype(np.float16), np.zeros((regions, 4), np.float16)
        shards.append(Shard(vectors, None, offsets, boxes, np.ones(regions, np.float16), places))
    ids = np.arange(854)
    paths = tuple(f"{row}.jpg" for row in ids)
    return Store(Path(), ids, paths, np.zeros((854, 2), np.int32), DIM, "", "", tuple(shards))


STORE, ASKED = make_store(), unit(QUERIES)
INDEX = ExactIndex(STORE)
ON_THIS_CPU = pytest.mark.skipif(
    not INDEX.has_fast_scores, reason="this CPU or torch does not multiply bfloat16 fast"
)


def fast_scores(queries: np.ndarray, index: ExactIndex = INDEX) -> np.ndarray:
    return np.concatenate([part for _, part in index.iter_scores(queries, fast=True)], axis=1)


def test_scores_are_those_of_float64_within_the_bound() -> None:
    expected, bounds = np.full((QUERIES, 854), -np.inf), np.zeros(854)
    for shard in STORE.shards:
        vectors = shard.vectors.astype(np.float64)
        far = np.linalg.norm(vectors - vectors[:256].mean(axis=0), axis=1)
        products = ASKED.astype(np.float64) @ vectors.T
        for row, start, stop in zip(shard.rows, shard.offsets, shard.offsets[1:], strict=False):
            if row >= 0 and stop > start:
                expected[:, row] = products[:, start:stop].max(axis=1)
                bounds[row] = 0.008 * far[start:stop].max()
    found = fast_scores(ASKED)
    scored = np.isfinite(expected[0])
    assert np.array_equal(np.isfinite(found), np.isfinite(expected))
    errors = np.abs(found[:, scored] - expected[:, scored])
    assert (errors <= bounds[scored]).all()
    assert np.sqrt((errors**2).mean()) < 2.5e-4
    # Without the mean, scores of 0.5 would be multiples of 0.004.
    assert len(np.unique(found[0])) > 300


@ON_THIS_CPU
def test_a_query_scores_the_same_in_any_company(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, threads = fast_scores(ASKED), torch.get_num_threads()
    try:
        for number, chosen in enumerate(([0], [299, 5], RNG.permutation(QUERIES), range(40, 97))):
            torch.set_num_threads(1 + number)
            monkeypatch.setattr("hardmine.index.search.exact._SCORES", 2_000 + 7_000 * number)
            assert fast_scores(ASKED[chosen]).tobytes() == expected[chosen].tobytes()
            assert torch.get_num_threads() == 1 + number
    finally:
        torch.set_num_threads(threads)


@ON_THIS_CPU
def test_an_index_may_be_split_at_any_shard() -> None:
    """As over several processes."""
    expected, start = fast_scores(ASKED[:9]), 0
    for first, stop in ((0, 1), (1, 3)):
        shards = STORE.shards[first:stop]
        count = sum(int((shard.rows >= 0).sum()) for shard in shards)
        own = slice(start, start + count)
        part = replace(
            STORE,
            ids=STORE.ids[own],
            paths=STORE.paths[own],
            sizes=STORE.sizes[own],
            shards=tuple(
                shard.with_rows(np.where(shard.rows >= 0, shard.rows - start, -1))
                for shard in shards
            ),
        )
        found = fast_scores(ASKED[:9], ExactIndex(part))
        assert found.tobytes() == np.ascontiguousarray(expected[:, own]).tobytes()
        start += count


def test_int8_vectors_are_scored_in_float32() -> None:
    first = STORE.shards[0]
    scales = np.ones(len(first.vectors), np.float32)
    int8 = replace(first, vectors=np.ones_like(first.vectors, np.int8), scales=scales)
    assert not ExactIndex(replace(STORE, shards=(int8, *STORE.shards[1:]))).has_fast_scores

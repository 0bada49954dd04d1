"""The exact index against a brute force in float64."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from half_precision import PRODUCTS, STORED_PRODUCTS

from hardmine.errors import InputError
from hardmine.index.search import exact, scan
from hardmine.index.search.exact import ExactIndex, index_from_regions
from hardmine.index.storage.store import Shard, Store, quantize_rows


def unit(rng: np.random.Generator, count: int, dim: int) -> np.ndarray:
    vectors = rng.standard_normal((count, dim))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_shard(vectors: np.ndarray, counts: np.ndarray, rows: np.ndarray, *, int8: bool) -> Shard:
    rng = np.random.default_rng(0)
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    boxes = np.sort(rng.random((len(vectors), 2, 2)), axis=1).reshape(-1, 4).astype(np.float16)
    stored, scales = quantize_rows(vectors) if int8 else (vectors.astype(np.float16), None)
    return Shard(stored, scales, offsets, boxes, np.ones(len(vectors), np.float16), rows)


def make_store(shards: list[Shard], dim: int) -> Store:
    count = sum(int((shard.rows >= 0).sum()) for shard in shards)
    paths = tuple(f"{row}.jpg" for row in range(count))
    sizes = np.zeros((count, 2), np.int32)
    return Store(
        Path("photos"), np.arange(count) * 7, paths, sizes, dim, "e", "kmeans:3", tuple(shards)
    )


def brute_force(store: Store, queries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(C, N) float64 scores and (C, N, 4) boxes, one image after the other."""
    scores = np.full((len(queries), len(store)), -np.inf)
    boxes = np.zeros((len(queries), len(store), 4))
    for shard in store.shards:
        wide = shard.vectors.astype(np.float64)
        if shard.scales is not None:
            wide *= shard.scales[:, None].astype(np.float64)
        for slot, row in enumerate(shard.rows):
            regions = slice(shard.offsets[slot], shard.offsets[slot + 1])
            if row < 0 or regions.start == regions.stop:
                continue
            products = (queries.astype(np.float64)[:, None, :] * wide[regions]).sum(axis=2)
            scores[:, row] = products.max(axis=1)
            boxes[:, row] = shard.boxes[regions][products.argmax(axis=1)]
    return scores, boxes


def ragged_store(seed: int, *, int8: bool = False, dim: int = 24) -> Store:
    """Two shards, rows interleaved, some images removed, some without regions."""
    rng = np.random.default_rng(seed)
    counts = [rng.integers(0, 6, 70), rng.integers(1, 4, 50)]
    owner = np.full(120, -1)
    kept = rng.permutation(120)[:100]
    owner[kept] = rng.permutation(100)
    return make_store(
        [
            make_shard(unit(rng, counts[0].sum(), dim), counts[0], owner[:70], int8=int8),
            make_shard(unit(rng, counts[1].sum(), dim), counts[1], owner[70:], int8=int8),
        ],
        dim,
    )


DTYPES = [None, *PRODUCTS]


@pytest.mark.parametrize(("int8", "dtype"), [(False, None), (True, None), *STORED_PRODUCTS])
@pytest.mark.parametrize("k", [1, 7, 100, 130])
def test_search_is_the_brute_force(k: int, int8: bool, dtype: torch.dtype | None) -> None:
    store = ragged_store(1, int8=int8)
    queries = unit(np.random.default_rng(2), 9, store.dim)
    expected, boxes = brute_force(store, queries)
    hits = ExactIndex(store, dtype=dtype).search(queries, k)
    for query in range(len(queries)):
        order = np.lexsort((np.arange(100), -expected[query]))
        order = order[expected[query, order] > -np.inf][:k]
        assert hits.image_rows[query, : len(order)].tolist() == order.tolist()
        np.testing.assert_allclose(
            hits.scores[query, : len(order)], expected[query, order], atol=1e-6
        )
        np.testing.assert_allclose(hits.boxes[query, : len(order)], boxes[query, order])
        assert (hits.image_rows[query, len(order) :] == -1).all()
        assert (hits.scores[query, len(order) :] == -np.inf).all()


@pytest.mark.parametrize("dim", [31, 32])
def test_one_query_of_int8_is_the_brute_force(dim: int) -> None:
    """Some CPUs multiply int8 as it is stored, in dimensions that are multiples of 32."""
    store = ragged_store(1, int8=True, dim=dim)
    query = unit(np.random.default_rng(2), 1, dim)
    expected, boxes = brute_force(store, query)
    order = np.argsort(-expected[0], kind="stable")[:10]
    hits = ExactIndex(store).search(query, 10)
    assert hits.image_rows[0].tolist() == order.tolist()
    np.testing.assert_allclose(hits.scores[0], expected[0, order], atol=1e-6)
    np.testing.assert_allclose(hits.boxes[0], boxes[0, order])


@pytest.mark.parametrize("budget", [1, 50, 400])
def test_small_blocks_change_nothing(budget: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store = ragged_store(3)
    queries = unit(np.random.default_rng(4), 5, store.dim)
    index = ExactIndex(store)
    whole, scores = index.search(queries, 12), index.scores(queries)
    monkeypatch.setattr(exact, "_SCORES", budget)
    monkeypatch.setattr(exact, "_QUERIES", 2)
    monkeypatch.setattr(scan, "_SCORES", budget)
    monkeypatch.setattr(scan, "_MAX_PENDING", budget)
    cut = index.search(queries, 12)
    assert cut.image_rows.tolist() == whole.image_rows.tolist()
    np.testing.assert_array_equal(cut.scores, whole.scores)
    np.testing.assert_array_equal(cut.boxes, whole.boxes)
    np.testing.assert_allclose(index.scores(queries), scores, atol=1e-6)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_wrong_guess_changes_nothing(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The guessed threshold is too high for some queries: they are searched again without it."""
    store = ragged_store(3)
    queries = unit(np.random.default_rng(4), 6, store.dim)
    index = ExactIndex(store)
    whole = index.search(queries, 12)
    guesses = whole.scores[np.arange(6), [0, 11, 5, 11, 0, 11]] - np.float32(1e-6)
    guesses[4] = 0.99
    searched_again: list[int] = []
    find_best = scan.find_best

    def counting(store: Store, vectors: np.ndarray, *rest: Any, **more: Any) -> Any:
        searched_again.append(len(vectors))
        return find_best(store, vectors, *rest, **more)

    monkeypatch.setattr(scan, "find_best", counting)
    monkeypatch.setattr(scan, "_guess_threshold", lambda *_: guesses)
    monkeypatch.setattr(scan, "_MIN_REGIONS", 10)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        again = index.search(queries, 12)
    finally:
        torch.set_num_threads(before)
    # The guesses for queries 0, 2 and 4 were too high.
    assert searched_again == [3]
    assert again.image_rows.tolist() == whole.image_rows.tolist()
    np.testing.assert_array_equal(again.scores, whole.scores)
    np.testing.assert_array_equal(again.boxes, whole.boxes)


@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
def test_scores_are_the_brute_force(int8: bool) -> None:
    store = ragged_store(5, int8=int8)
    queries = torch.from_numpy(unit(np.random.default_rng(6), 300, store.dim))
    expected, _ = brute_force(store, queries.numpy())
    scores = ExactIndex(store).scores(queries)
    assert scores.dtype == np.float32
    np.testing.assert_array_equal(np.isinf(scores), np.isinf(expected))
    np.testing.assert_allclose(scores, expected, atol=2e-6)


def test_restriction_to_rows() -> None:
    store = ragged_store(7)
    queries = unit(np.random.default_rng(8), 4, store.dim)
    expected, _ = brute_force(store, queries)
    rows = np.array([3, 50, 51, 52, 97, 3])
    hits = ExactIndex(store).search(queries, 4, rows=rows)
    for query in range(4):
        order = [row for row in np.argsort(-expected[query]) if row in rows]
        order = [row for row in order if expected[query, row] > -np.inf][:4]
        assert hits.image_rows[query, : len(order)].tolist() == order
    nothing = ExactIndex(store).search(queries, 4, rows=[])
    assert not nothing.found.any()


def test_equal_images_come_in_row_order() -> None:
    vector = unit(np.random.default_rng(9), 1, 64)
    count = 501
    vectors = np.repeat(vector, 3 * count, axis=0)
    index = index_from_regions(vectors, np.arange(count + 1) * 3, ids=np.arange(count))
    hits = index.search(np.repeat(vector, 2, axis=0), 20)
    assert hits.image_rows.tolist() == [list(range(20))] * 2


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_near_duplicates_are_ordered(dtype: torch.dtype | None) -> None:
    """Images differ by the last bit of one component, far below the error of float32."""
    rng = np.random.default_rng(10)
    base = unit(rng, 1, 512)[0].astype(np.float16)
    vectors = np.tile(base, (400, 1))
    for row, component in enumerate(rng.integers(0, 512, 400)):
        direction = np.float16(rng.choice([-2, 2]))
        vectors[row, component] = np.nextafter(vectors[row, component], direction)
    query = unit(rng, 1, 512)
    store = index_from_regions(vectors, np.arange(401), ids=np.arange(400)).store
    index = ExactIndex(store, dtype=dtype)
    truth = (vectors.astype(np.float64) * query[0].astype(np.float64)).sum(axis=1).round(12)
    hits = index.search(query, 50)
    assert hits.image_rows[0].tolist() == np.lexsort((np.arange(400), -truth))[:50].tolist()


def test_best_regions() -> None:
    store = ragged_store(11)
    queries = unit(np.random.default_rng(12), 3, store.dim)
    expected, boxes = brute_force(store, queries)
    rows = np.array([[5, -1, 99, 5], [0, 1, 2, 3], [-1, -1, -1, -1]])
    scores, found = ExactIndex(store).best_regions(queries, rows)
    for query in range(3):
        for column, row in enumerate(rows[query]):
            truth = -np.inf if row < 0 else expected[query, row]
            box = np.zeros(4) if row < 0 else boxes[query, row]
            assert scores[query, column] == pytest.approx(truth, abs=1e-6)
            np.testing.assert_allclose(found[query, column], box)


def test_region_vectors_are_those_of_the_best_fitting_regions() -> None:
    left, right, whole = [0, 0, 0.5, 1], [0.5, 0, 1, 1], [0, 0, 1, 1]
    vectors = np.eye(6)[[0, 1, 2, 3, 4]]
    store = index_from_regions(
        vectors, [0, 3, 3, 5], [whole, left, right, right, left], ids=[7, 8, 9]
    ).store
    boxes = [[0.1, 0.1, 0.4, 0.9], [0.6, 0, 0.9, 1], [0, 0, 0.9, 1], left, left, left, right]
    rows = [0, 0, 0, 2, 1, -1, 2]
    found = ExactIndex(store).region_vectors(rows, boxes)
    expected = vectors[[1, 2, 0, 4, 0, 0, 3]]
    expected[[4, 5]] = 0  # an image without regions, and no image
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(InputError, match="one for each row"):
        ExactIndex(store).region_vectors(rows, boxes[:2])


def test_an_empty_index_finds_nothing() -> None:
    index = index_from_regions(np.zeros((0, 8)), [0], ids=np.zeros(0, np.int64))
    assert len(index) == 0
    assert index.scores(np.zeros((2, 8))).shape == (2, 0)
    hits = index.search(np.zeros((2, 8)), 3)
    assert hits.image_rows.tolist() == [[-1]] * 2
    assert index.search(np.zeros((0, 8)), 3).image_rows.shape == (0, 1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"rows": [0, -1]}, "rows_of", id="a negative row"),
        pytest.param({"rows": [3]}, "0 to 2", id="a row past the end"),
        pytest.param({"rows": [0.5]}, "whole numbers", id="half a row"),
    ],
)
def test_invalid_arguments_are_refused(change: dict[str, object], message: str) -> None:
    index = index_from_regions(np.eye(8)[:3], np.arange(4), ids=["a", "b", "c"])
    with pytest.raises(InputError, match=message):
        index.search(**{"vectors": np.zeros((1, 8)), "k": 1, **change})


def test_vectors_must_be_of_unit_length() -> None:
    with pytest.raises(InputError, match="unit"):
        index_from_regions(2 * np.eye(3), np.arange(4), ids=[1, 2, 3])


def test_rows_of_ids() -> None:
    index = index_from_regions(np.eye(3), np.arange(4), ids=["a", "b", "c"])
    assert index.rows_of(["c", "z", "a"]).tolist() == [2, -1, 0]
    assert index.paths == ("a", "b", "c")


def test_a_dtype_that_torch_cannot_multiply_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot multiply in torch\.bool on cpu"):
        ExactIndex(ragged_store(1), dtype=torch.bool)
    with pytest.raises(InputError, match=r"float16 vectors are not multiplied in torch\.int8"):
        ExactIndex(ragged_store(1), dtype=torch.int8)

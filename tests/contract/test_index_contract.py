"""Behaviour that every index shares, for each backend."""

from __future__ import annotations

import atexit
import functools
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_device import FakeDevice
from half_precision import needs_half_product
from pixel_images import PixelEncoder, write_images

from hardmine.errors import InputError
from hardmine.index import build_index, open_index
from hardmine.index.base import Index
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store, quantize_rows

Make = Callable[[Store], Index]
DIM = 32


def _faiss(kind: str) -> Make:
    def make(store: Store) -> Index:
        pytest.importorskip("faiss")
        from hardmine.index.search.faiss import FaissIndex

        return FaissIndex(store, kind)

    return make


def _lance(store: Store) -> Index:
    pytest.importorskip("lancedb")
    from hardmine.index.search.lance import LanceIndex

    return LanceIndex(store)


def _milvus(store: Store) -> Index:
    pytest.importorskip("pymilvus")
    pytest.importorskip("milvus_lite")
    from hardmine.index.search.milvus import MilvusIndex

    # With a hash, equal stores share what was sent for the first.
    hashed = hashlib.sha256()
    for shard in store.shards:
        for part in (shard.vectors, shard.offsets, shard.rows):
            hashed.update(part.tobytes())
    return MilvusIndex(replace(store, digest=hashed.hexdigest()), _milvus_file())


@functools.cache
def _milvus_file() -> str:
    """A server of Milvus Lite for all tests."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return str(Path(folder) / "milvus.db")


def _on_gpu(store: Store) -> Index:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    return ExactIndex(store, "cuda")


BACKENDS: dict[str, Make] = {
    "exact": ExactIndex,
    "exact-bfloat16": lambda store: ExactIndex(store, dtype=torch.bfloat16),
    "exact-float16": lambda store: ExactIndex(store, dtype=torch.float16),
    "exact-cuda": _on_gpu,
    "exact-as-on-cuda": lambda store: ExactIndex(store, FakeDevice.device),
    "faiss-flat": _faiss("flat"),
    "faiss-ivfpq": _faiss("ivfpq"),
    "faiss-hnsw": _faiss("hnsw"),
    "lance": _lance,
    "milvus": _milvus,
}
NEEDS = {"exact-float16": needs_half_product}
APPROXIMATE = {"faiss-ivfpq", "faiss-hnsw", "milvus"}


@pytest.fixture(
    params=[pytest.param(name, marks=NEEDS[name]) if name in NEEDS else name for name in BACKENDS]
)
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make(backend: str) -> Iterator[Make]:
    with FakeDevice() if backend == "exact-as-on-cuda" else nullcontext():
        yield BACKENDS[backend]


def unit(seed: int, count: int) -> np.ndarray:
    vectors = np.random.default_rng(seed).standard_normal((count, DIM))
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_store(counts: list[list[int]], rows: list[list[int]], *, int8: bool = False) -> Store:
    """A store of shards, given the region count and row (-1: removed) of each stored image."""
    shards = []
    for number, (shard_counts, shard_rows) in enumerate(zip(counts, rows, strict=True)):
        vectors = unit(number, sum(shard_counts))
        stored, scales = quantize_rows(vectors) if int8 else (vectors.astype(np.float16), None)
        corners = np.random.default_rng(number).random((len(vectors), 2, 2))
        boxes = np.sort(corners, axis=1).reshape(-1, 4).astype(np.float32)
        offsets = np.concatenate([[0], np.cumsum(shard_counts)]).astype(np.int64)
        mass = np.ones(len(vectors), np.float32)
        shards.append(Shard(stored, scales, offsets, boxes, mass, np.array(shard_rows, np.int64)))
    count = sum(row >= 0 for shard_rows in rows for row in shard_rows)
    names = np.array([f"image-{row}" for row in range(count)], dtype=str)
    sizes = np.full((count, 2), 100, np.int32)
    paths = tuple(f"a/{row}.jpg" for row in range(count))
    return Store(Path("root"), names, paths, sizes, DIM, "encoder", "kmeans:5", tuple(shards))


def large_store(*, int8: bool = False) -> Store:
    """400 images with 0 to 9 regions in two shards; every fifth stored one was removed."""
    generator = np.random.default_rng(3)
    counts = [generator.integers(0, 10, 300).tolist(), generator.integers(0, 10, 200).tolist()]
    order = iter(generator.permutation(400).tolist())
    rows = [[-1 if slot % 5 == 0 else next(order) for slot in range(size)] for size in (300, 200)]
    return make_store(counts, rows, int8=int8)


def brute_force(store: Store, queries: np.ndarray) -> np.ndarray:
    """(C, N) float64 scores."""
    scores = np.full((len(queries), len(store)), -np.inf)
    for shard in store.shards:
        wide = shard.vectors.astype(np.float64)
        wide = wide if shard.scales is None else wide * shard.scales[:, None]
        for slot, row in enumerate(shard.rows.tolist()):
            regions = wide[shard.offsets[slot] : shard.offsets[slot + 1]]
            if row >= 0 and len(regions):
                scores[:, row] = (queries.astype(np.float64) @ regions.T).max(axis=1)
    return scores


@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
@pytest.mark.parametrize(("count", "k"), [(1, 1), (1, 10), (80, 10), (3, 500)])
def test_search(make: Make, backend: str, count: int, k: int, int8: bool) -> None:
    store = large_store(int8=int8)
    queries = unit(50, count)
    expected = brute_force(store, queries)
    hits = make(store).search(queries, k)
    assert hits.image_rows.shape == (count, min(k, len(store)))
    recalled = total = 0
    for query in range(count):
        rows = hits.image_rows[query][hits.found[query]]
        assert len(np.unique(rows)) == len(rows)
        # Every backend scores and orders correctly the images that it finds.
        np.testing.assert_allclose(
            hits.scores[query, : len(rows)], expected[query, rows], atol=1e-6
        )
        assert (np.diff(hits.scores[query, : len(rows)]) <= 0).all()
        assert not hits.found[query, len(rows) :].any()
        assert (hits.scores[query, len(rows) :] == -np.inf).all()
        best = np.argsort(-expected[query], kind="stable")
        best = best[expected[query, best] > -np.inf][:k]
        assert len(rows) == len(best)
        if backend not in APPROXIMATE:
            assert rows.tolist() == best.tolist()
        recalled += len(np.intersect1d(rows, best))
        total += len(best)
    assert recalled >= (0.7 if backend in APPROXIMATE else 1) * total


def test_boxes_are_of_the_best_region(make: Make) -> None:
    store = large_store()
    index = make(store)
    queries = unit(51, 4)
    hits = index.search(queries, 6)
    scores, boxes = index.best_regions(queries, hits.image_rows)
    np.testing.assert_array_equal(scores, hits.scores)
    np.testing.assert_array_equal(boxes, hits.boxes)
    assert (boxes[..., 2:] > boxes[..., :2]).all()


def test_scores_of_all_images(make: Make) -> None:
    store = large_store()
    queries = unit(52, 7)
    index = make(store)
    scores = index.scores(torch.from_numpy(queries))
    np.testing.assert_allclose(scores, brute_force(store, queries), atol=1e-5)
    # A query scores the same to the bit alone and beside others.
    np.testing.assert_array_equal(index.scores(queries[:1]), scores[:1])
    rows = 0
    for part, chunk in index.iter_scores(queries):
        assert part.start == rows
        np.testing.assert_array_equal(chunk, scores[:, part])
        rows = part.stop
    assert rows == len(index)


def test_search_among_rows(make: Make) -> None:
    store = large_store()
    queries = unit(53, 3)
    rows = np.arange(40, 90)
    expected = brute_force(store, queries)[:, rows]
    hits = make(store).search(queries, 5, rows=rows)
    assert hits.image_rows.tolist() == rows[np.argsort(-expected, axis=1)[:, :5]].tolist()


@pytest.mark.parametrize(
    ("counts", "rows"),
    [
        pytest.param([], [], id="no shard"),
        pytest.param([[]], [[]], id="an empty shard"),
        pytest.param([[3, 2]], [[-1, -1]], id="all removed"),
        pytest.param([[0, 0]], [[0, 1]], id="no image has a region"),
    ],
)
def test_nothing_to_find(make: Make, counts: list[list[int]], rows: list[list[int]]) -> None:
    store = make_store(counts, rows)
    index = make(store)
    hits = index.search(unit(54, 2), 3)
    assert not hits.found.any()
    assert (hits.scores == -np.inf).all()
    assert index.scores(unit(54, 2)).shape == (2, len(store))
    assert (index.scores(unit(54, 2)) == -np.inf).all()


def test_equal_images_come_in_row_order(make: Make) -> None:
    store = make_store([[2] * 6], [[5, 3, 1, 0, 2, 4]])
    shard = store.shards[0]
    shard.vectors[:] = shard.vectors[0]
    hits = make(store).search(shard.vectors[:1].astype(np.float32), 6)
    assert hits.image_rows.tolist() == [[0, 1, 2, 3, 4, 5]]


def test_properties(make: Make) -> None:
    index = make(make_store([[1, 2], [3]], [[0, 2], [1]]))
    assert len(index) == 3
    assert index.ids.tolist() == ["image-0", "image-1", "image-2"]
    assert index.rows_of(["image-2", "no such"]).tolist() == [2, -1]
    assert (index.dim, index.encoder_fingerprint, index.clusters) == (DIM, "encoder", "kmeans:5")
    assert index.paths[1] == "a/1.jpg"
    assert index.root == Path("root")
    assert index.sizes.tolist() == [[100, 100]] * 3


def test_invalid_queries_are_refused(make: Make) -> None:
    index = make(make_store([[1, 2]], [[0, 1]]))
    for vectors, message in (
        (np.zeros((1, DIM + 1), np.float32), "dimension"),
        (np.zeros(DIM), "dimension"),
        ([[0.0] * DIM, [0.0]], r"must be \(C, 32\)"),
        (np.full((1, DIM), np.inf, np.float32), "finite.*got NaN or infinity"),
        (np.full((1, DIM), 1e200), "norms up to 1e"),
        (np.ones((1, DIM), np.complex64), "real numbers, got complex64"),
        (torch.ones((1, DIM), dtype=torch.complex64), "real numbers, got"),
        (np.full((1, DIM), "a"), "real numbers"),
    ):
        for method in (index.scores, lambda given: index.search(given, 1)):
            with pytest.raises(InputError, match=message):
                method(vectors)
    for k in (0, -1, 1.5, "a", True, None):
        with pytest.raises(InputError, match="k must be a whole number of at least 1"):
            index.search(unit(55, 1), k)  # type: ignore[arg-type]


def test_k_beyond_the_number_of_images_takes_no_memory(make: Make) -> None:
    index = make(make_store([[1, 2], [3]], [[0, 2], [1]]))
    assert index.search(unit(56, 2), np.int64(10**12)).image_rows.shape == (2, 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("length", [1e-30, 300.0])
@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
def test_the_length_of_a_query_scales_its_scores(make: Make, int8: bool, length: float) -> None:
    """Half precision ends at 65504, and an int8 vector of 127s is 718 long in 32 dimensions."""
    shard = make_store([[1] * 30], [list(range(30))], int8=int8).shards[0]
    if int8:
        shard.vectors[:15] = 127 * np.sign(unit(58, 15))
        shard.scales[:15] = 1 / (127 * DIM**0.5)  # type: ignore[index]
    store = make_store([[1] * 30], [list(range(30))], int8=int8)
    index = make(replace(store, shards=(shard,)))
    queries = unit(57, 3)
    hits, expected = index.search(length * queries, 9), index.search(queries, 9)
    assert hits.image_rows.tolist() == expected.image_rows.tolist()
    np.testing.assert_array_equal(hits.boxes, expected.boxes)
    np.testing.assert_allclose(hits.scores / length, expected.scores, rtol=1e-5)
    scores = index.scores(length * queries)
    np.testing.assert_allclose(scores / length, index.scores(queries), rtol=1e-5, atol=1e-6)
    best, _ = index.best_regions(length * queries, hits.image_rows)
    np.testing.assert_array_equal(best, hits.scores)


def test_the_cpu_keeps_faiss_off_the_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    faiss = pytest.importorskip("faiss")
    moved: list[object] = []
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(
        faiss, "index_cpu_to_all_gpus", lambda index: moved.append(index) or index, raising=False
    )
    images = write_images(tmp_path / "images", 3)
    build_index(images, PixelEncoder(), tmp_path / "out")
    for device in ("cpu", torch.device("cpu")):
        open_index(tmp_path / "out", backend="faiss:flat", device=device)
    assert moved == []
    open_index(tmp_path / "out", backend="faiss:flat")
    assert len(moved) == 1


def test_an_unknown_kind_of_faiss_index() -> None:
    pytest.importorskip("faiss")
    from hardmine.index.search.faiss import FaissIndex

    with pytest.raises(InputError, match="flat, ivfpq, hnsw"):
        FaissIndex(make_store([[1]], [[0]]), "lsh")


@pytest.mark.parametrize("int8", [False, True])
def test_mean_vectors_are_those_of_each_images_regions(make: Make, int8: bool) -> None:
    store = make_store([[2, 0, 3, 1], [4, 1]], [[3, 1, -1, 0], [4, 2]], int8=int8)
    index = make(store)
    means = index.mean_vectors()
    assert means.shape == (5, DIM)
    for rows in ([4, 0, 4, 1], []):
        np.testing.assert_array_equal(index.mean_vectors(rows), means[np.array(rows, int)])
    with pytest.raises(InputError, match="rows must lie in 0 to 4"):
        index.mean_vectors([5])
    for shard in store.shards:
        stored = shard.vectors.astype(np.float64)
        vectors = stored if shard.scales is None else stored * shard.scales[:, None]
        for place, row in enumerate(shard.rows.tolist()):
            own = vectors[shard.offsets[place] : shard.offsets[place + 1]]
            if row >= 0:
                expected = own.sum(axis=0) / max(np.linalg.norm(own.sum(axis=0)), 1e-12)
                np.testing.assert_allclose(means[row], expected, atol=5e-4)
    assert not means[1].any()

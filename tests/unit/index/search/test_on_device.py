"""The search on a GPU, run on a device that counts what the host waits for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_device import NAME, FakeDevice

from hardmine.errors import InputError
from hardmine.index.search import on_device, staging
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store, quantize_rows

DIM, ROWS = 24, 150


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDevice]:
    """Copies as CUDA does, from page-locked memory, with room for any index."""
    fake = FakeDevice()
    monkeypatch.setattr(staging, "_ASYNCHRONOUS", (NAME,))
    monkeypatch.setattr(staging, "_allocate", lambda n, **_: torch.empty(n, dtype=torch.uint8))
    monkeypatch.setattr(staging, "_record", fake.record)
    monkeypatch.setattr(on_device, "_free_memory", lambda _: 1 << 30)
    monkeypatch.setattr(on_device, "_ROWS", ROWS)
    monkeypatch.setattr(on_device, "_COLUMNS", 5)
    with fake:
        yield fake


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def make_store(*, int8: bool = False, images: int = 100, kinds: int = 0) -> Store:
    """Three shards of images with 0 to 9 regions, one with more than a part holds, some removed.

    With ``kinds``, all vectors are nearly one of so many: they differ in their last bits.
    """
    rng = np.random.default_rng(0)
    removed = rng.random((3, images)) < 0.1
    order = iter(rng.permutation(int((~removed).sum())).tolist())
    shards = []
    for gone in removed:
        counts = rng.integers(0, 10, images)
        counts[images // 2] = ROWS + 7
        vectors = rng.standard_normal((counts.sum(), DIM))
        if kinds:
            vectors = rng.standard_normal((kinds, DIM))[rng.integers(0, kinds, len(vectors))]
            vectors *= 1 + rng.choice([0, 2.0**-11], vectors.shape)
        kept, scales = quantize_rows(unit(vectors)) if int8 else (unit(vectors).astype("f2"), None)
        rows = np.array([-1 if missing else next(order) for missing in gone])
        boxes = rng.random((len(vectors), 4)).astype(np.float32)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        shards.append(Shard(kept, scales, offsets, boxes, boxes[:, 0], rows))
    count = int((~removed).sum())
    sizes = np.zeros((count, 2), np.int32)
    return Store(Path(), np.arange(count), ("",) * count, sizes, DIM, "", "none", tuple(shards))


def brute_force(store: Store, queries: np.ndarray) -> np.ndarray:
    """(C, N) float64 scores, to 12 digits."""
    scores = np.full((len(queries), len(store)), -np.inf)
    for shard in store.shards:
        wide = shard.vectors.astype(np.float64)
        wide = wide if shard.scales is None else wide * shard.scales[:, None]
        each = queries.astype(np.float64) @ wide.T
        for slot, row in enumerate(shard.rows.tolist()):
            part = each[:, shard.offsets[slot] : shard.offsets[slot + 1]]
            if row >= 0 and part.size:
                scores[:, row] = part.max(axis=1)
    return scores.round(12)


def require_best(store: Store, queries: np.ndarray, k: int, rows: np.ndarray | None) -> None:
    """Hits on the device are those of a brute force, and of the CPU to the bit."""
    index, cpu = ExactIndex(store, NAME), ExactIndex(store)
    for _ in range(2):  # what stays on the device is used at the second search
        found = index.search(queries, k, rows=rows)
        expected = cpu.search(queries, k, rows=rows)
        for name in ("image_rows", "scores", "boxes"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    truth = brute_force(store, queries)
    if rows is not None:
        truth[:, np.setdiff1d(np.arange(len(store)), rows)] = -np.inf
    best = np.argsort(-truth, axis=1, kind="stable")[:, :k]
    there = np.take_along_axis(truth, best, axis=1) > -np.inf
    np.testing.assert_array_equal(found.image_rows, np.where(there, best, -1))


QUERIES = unit(np.random.default_rng(1).standard_normal((12, DIM)))


@pytest.mark.usefixtures("device")
@pytest.mark.parametrize("int8", [False, True])
@pytest.mark.parametrize("room", [0, 1 << 30], ids=["in chunks", "kept"])
@pytest.mark.parametrize("share", [None, 0.3, 0.8])
def test_hits_are_exact(
    int8: bool, room: int, share: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "_free_memory", lambda _: room)
    store = make_store(int8=int8)
    chosen = np.random.default_rng(2).random(len(store))
    rows = None if share is None else np.flatnonzero(chosen < share)
    require_best(store, QUERIES, 7, rows)
    if share is None and not room:
        require_best(store, QUERIES, 10**6, rows)


@pytest.mark.parametrize("int8", [False, True])
def test_a_search_waits_once(int8: bool, device: FakeDevice) -> None:
    index = ExactIndex(make_store(int8=int8), NAME)
    index.search(QUERIES, 10)
    parts = len(index._on_device._sent)  # type: ignore[union-attr]
    assert parts > 10
    assert (device.uploads, device.downloads, len(device.waits)) == (parts + 1, 1, 1)
    device.reset()
    index.search(QUERIES, 10)
    # The queries up, the candidates down.
    assert (device.uploads, device.downloads, len(device.waits)) == (1, 1, 1)
    assert device.launches < 30 * parts
    device.reset()
    index.search(QUERIES, 10, rows=np.arange(0, len(index), 7))
    assert (device.downloads, len(device.waits)) == (1, 1)
    assert device.uploads <= parts + 1
    device.reset()
    index.scores(QUERIES)
    assert (device.uploads, device.downloads, len(device.waits)) == (1, 1, 1)


def test_what_does_not_fit_is_sent_in_chunks(
    device: FakeDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "_free_memory", lambda _: 1 << 14)
    store = make_store()
    index = ExactIndex(store, NAME)
    for _ in range(2):
        device.reset()
        index.search(QUERIES, 10)
        assert device.uploads > store.num_regions // ROWS
        assert (device.downloads, len(device.waits)) == (1, 1)


def test_few_images_do_not_send_all(device: FakeDevice) -> None:
    index = ExactIndex(make_store(), NAME)
    index.search(QUERIES, 10, rows=[3, 4])
    assert device.uploads == 2


@pytest.mark.parametrize("int8", [False, True])
def test_the_bound_holds_for_any_sum_of_float32(int8: bool, device: FakeDevice) -> None:
    """Vectors differ in their last bits, and every sum has the largest error."""
    rng = torch.Generator().manual_seed(0)

    def largest_error(queries: torch.Tensor, vectors: torch.Tensor, scores: torch.Tensor) -> None:
        for factor in (queries, vectors):
            # TF32 drops 13 bits of a float32.
            assert not (factor.contiguous().view(torch.int32) & 0x1FFF).any()
        lengths = queries.norm(dim=1)[:, None] * vectors.norm(dim=0)
        sides = torch.randint(0, 2, scores.shape, generator=rng) * 2 - 1
        scores += sides * lengths * (2 * DIM * 2.0**-23)

    device._product = largest_error
    require_best(make_store(int8=int8, kinds=9), QUERIES, 9, None)


@pytest.mark.usefixtures("device")
def test_more_equal_images_than_are_kept() -> None:
    store = make_store(kinds=1)
    query = unit(store.shards[0].vectors[:1].astype(np.float64))
    require_best(store, np.concatenate([query, np.zeros((1, DIM), np.float32)]), 3, None)


@pytest.mark.usefixtures("device")
def test_scores_are_the_same_alone_and_beside_others() -> None:
    store = make_store()
    index = ExactIndex(store, NAME)
    scores = index.scores(QUERIES)
    np.testing.assert_allclose(scores, brute_force(store, QUERIES), atol=1e-6)
    np.testing.assert_array_equal(index.scores(QUERIES[11:]), scores[11:])
    np.testing.assert_array_equal(index.scores_between(QUERIES, 5, 90), scores[:, 5:90])


@pytest.mark.usefixtures("device")
def test_a_dtype_is_for_the_cpu() -> None:
    with pytest.raises(InputError, match="leave it out on lazy"):
        ExactIndex(make_store(), NAME, dtype=torch.float16)

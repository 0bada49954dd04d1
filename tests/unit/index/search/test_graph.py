"""The graph kept beside an index: the same hits, not built again, and every link is checked."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from pixel_images import PixelEncoder, as_nobody, write_images

from hardmine.index import build_index, open_index, update_index
from hardmine.index.storage.files import sha256_of
from hardmine.index.storage.shard_files import map_array, write_array

faiss = pytest.importorskip("faiss")
from hardmine.index.search.graph import KeptGraph  # noqa: E402

COUNT, DIM = 600, 8
KEY = "k"
Change = Callable[[np.ndarray, np.ndarray], np.ndarray]


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    vectors = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def empty() -> Any:
    return faiss.IndexHNSWFlat(DIM, 4, faiss.METRIC_INNER_PRODUCT)


def test_a_kept_graph_gives_the_same_hits(tmp_path: Path, vectors: np.ndarray) -> None:
    built = empty()
    built.add(vectors)
    assert built.hnsw.max_level >= 2
    KeptGraph(tmp_path / "graph", KEY).save(built)
    loaded = empty()
    assert not KeptGraph(tmp_path / "graph", "another state").load(loaded, COUNT)
    assert not KeptGraph(tmp_path / "nowhere", KEY).load(loaded, COUNT)
    assert KeptGraph(tmp_path / "graph", KEY).load(loaded, COUNT)
    loaded.storage.add(vectors)
    for found, expected in zip(
        loaded.search(vectors[:50], 5), built.search(vectors[:50], 5), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def at(place: int, value: int) -> Change:
    def change(array: np.ndarray, levels: np.ndarray) -> np.ndarray:
        array = array.copy()
        array[place] = value
        return array

    return change


def to_the_ground(neighbors: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Lead every link to a vector that is on the lowest level only."""
    return np.full_like(neighbors, np.flatnonzero(levels == 1)[0])


HOSTILE: dict[str, tuple[str, Change, str]] = {
    "beyond": ("neighbors", at(3, COUNT), "a link leads to no vector"),
    "far beyond": ("neighbors", at(-1, 2**31 - 1), "a link leads to no vector"),
    "negative": ("neighbors", at(0, -2), "a link leads to no vector"),
    "another level": ("neighbors", to_the_ground, "not on its level"),
    "fewer links": ("neighbors", lambda array, levels: array[:-1], "links, got"),
    "on no level": ("levels", at(5, 0), "on no level"),
    "on many levels": ("levels", at(5, 1000), "or on too many"),
    "higher than the top": ("levels", at(5, 8), "does not begin on the highest level"),
    "fewer vectors": ("levels", lambda array, levels: array[:-1], "a (600,) int32 array"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_graph_is_not_loaded(
    case: str, tmp_path: Path, vectors: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    """Though its hashes fit: faiss would read, and follow, whatever lies there in memory."""
    built = empty()
    built.add(vectors)
    levels = faiss.vector_to_array(built.hnsw.levels)
    graph = KeptGraph(tmp_path, KEY)
    graph.save(built)
    which, change, message = HOSTILE[case]
    path = tmp_path / f"hnsw.{which}.npy"
    stored = np.load(path, allow_pickle=False)
    written = write_array(tmp_path, path.name, change(stored, levels))
    record = msgspec.json.decode((tmp_path / "hnsw.json").read_bytes())
    record[which] = msgspec.to_builtins(written)
    (tmp_path / "hnsw.json").write_bytes(msgspec.json.encode(record))
    loaded = empty()
    with caplog.at_level(logging.WARNING):
        assert not graph.load(loaded, COUNT)
    assert loaded.ntotal == 0
    assert message in caplog.text


def test_an_index_builds_its_graph_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    images = write_images(tmp_path / "images", 12)
    out = tmp_path / "out"
    build_index(images.subset(range(11)), PixelEncoder(), out, clusters="none")
    queries = PixelEncoder().encode_texts(["a", "night"])
    saved: list[KeptGraph] = []
    save = KeptGraph.save
    monkeypatch.setattr(
        KeptGraph, "save", lambda graph, index: (saved.append(graph), save(graph, index))
    )

    def search() -> list[list[int]]:
        return open_index(out, backend="faiss:hnsw").search(queries, 4).image_rows.tolist()

    first = search()
    assert search() == first
    assert len(saved) == 1
    levels = map_array(out / "graph" / "hnsw.levels.npy", "int32", (11 * 16,))
    assert (levels >= 1).all()
    # A damaged file, an update, and a build over the folder do without it.
    path = out / "graph" / "hnsw.neighbors.npy"
    before = sha256_of(path)
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\1\0")
    assert search() == first
    assert "its content has changed" in caplog.text
    assert (len(saved), sha256_of(path)) == (2, before)
    update_index(out, images, PixelEncoder())
    search()
    assert len(saved) == 3
    build_index(images, PixelEncoder(), out, clusters="whole", resume=False)
    search()
    assert len(saved) == 4


def test_a_folder_that_cannot_be_written_to_is_no_error(vectors: np.ndarray) -> None:
    built = empty()
    built.add(vectors[:10])
    with as_nobody():
        KeptGraph(Path("/graph"), KEY).save(built)
    assert not Path("/graph").exists()

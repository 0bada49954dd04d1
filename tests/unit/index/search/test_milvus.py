"""Milvus: vectors are sent once, and near-identical regions crowd out no image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import Unreachable
from hardmine.index.search.exact import index_from_regions
from hardmine.index.storage.store import Store

pytest.importorskip("pymilvus", reason="pymilvus is not installed: pip install 'hardmine[milvus]'")
pytest.importorskip("milvus_lite", reason="milvus-lite is not installed")

from hardmine.index.search.milvus import MilvusIndex


def test_vectors_are_sent_once_and_no_image_is_crowded_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).standard_normal((40, 8))
    vectors[:8] = vectors[0]  # equal regions of the first image
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    exact = index_from_regions(vectors, [0, *range(8, 41)], ids=np.arange(33))
    store, uri = replace(exact.store, digest="ab" * 32), str(tmp_path / "milvus.db")
    sent: list[int] = []

    def send(index: MilvusIndex, given: Store) -> None:
        sent.append(given.num_regions)
        original(index, given)

    original = MilvusIndex._send
    monkeypatch.setattr(MilvusIndex, "_send", send)
    query = vectors[:1].astype(np.float32)
    MilvusIndex(store, uri)
    index = MilvusIndex(store, uri)
    assert sent == [40]
    best = exact.search(query, 4).image_rows
    assert np.array_equal(index.search(query, 4).image_rows, best)
    assert sorted(index._nearest(query, 4)[0]) == sorted(best[0])
    index._client.delete(index._name, ids=[39])  # as if sending had been broken off
    MilvusIndex(store, uri)
    assert sent == [40, 40]


def test_what_cannot_be_reached_is_said() -> None:
    store = index_from_regions(np.eye(4), np.arange(5), ids=np.arange(4)).store
    with pytest.raises(Unreachable, match="Milvus cannot be reached"):
        MilvusIndex(store, "http://127.0.0.1:1")

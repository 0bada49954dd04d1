"""LanceDB's table is kept beside the index, and its inverted lists find most of the best images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardmine.index.search.exact import ExactIndex, index_from_regions
from hardmine.index.storage.store import Store

lancedb = pytest.importorskip("lancedb")

from hardmine.index.search import lance  # noqa: E402 (needs lancedb)


def make_store(digest: str) -> Store:
    """400 images of two regions, in dimensions that are no multiple of 8."""
    vectors = np.random.default_rng(0).standard_normal((800, 30))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = index_from_regions(vectors, np.arange(401) * 2, ids=np.arange(400))
    return replace(index.store, digest=digest)


def test_a_table_with_inverted_lists_is_kept_for_the_same_index_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance, "_MIN_REGIONS", 500)
    store, folder = make_store("a" * 64), tmp_path / "lance"
    queries = np.random.default_rng(1).standard_normal((4, 30))
    index = lance.LanceIndex(store, folder)
    hits, expected = index.search(queries, 20), ExactIndex(store).search(queries, 20)
    common = [
        np.isin(*pair).mean() for pair in zip(hits.image_rows, expected.image_rows, strict=True)
    ]
    assert np.mean(common) >= 0.9
    assert len(index._table.list_indices()) == 1
    with monkeypatch.context() as patched:
        patched.delattr(lance, "_make_table")
        again = lance.LanceIndex(store, folder).search(queries, 20)
    np.testing.assert_array_equal(again.image_rows, hits.image_rows)
    # The index was updated: its table replaces the old one.
    lance.LanceIndex(make_store("b" * 64), folder)
    assert lancedb.connect(folder).list_tables().tables == ["regions-" + "b" * 32]


def test_a_table_without_padding_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the first tables were."""
    store, query = make_store("a" * 64), np.ones((1, 30))
    with monkeypatch.context() as patched:
        patched.setattr(lance, "_padding", lambda dim: 0)
        lance.LanceIndex(store, tmp_path)
    hits = lance.LanceIndex(store, tmp_path).search(query, 20)
    np.testing.assert_array_equal(hits.image_rows, ExactIndex(store).search(query, 20).image_rows)


def test_a_folder_that_cannot_be_written_to_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    index = lance.LanceIndex(make_store(""), tmp_path / "file" / "lance")
    assert index.search(np.ones((1, 30)), 3).found.all()

"""Cached scores: the same numbers, fewer passes over the index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toy_data import WordEncoder, make_toy_data, text_vector

from hardmine.errors import IndexMismatch, InputError
from hardmine.index.search.exact import ExactIndex
from hardmine.mining.scores import ScoreCache

TOY = make_toy_data(40)


class Counting(ExactIndex):
    """Counts how many vectors were asked for in each pass, and of how many images the means."""

    passes: list[int]
    means: list[int]

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, Any]]:
        self.passes.append(len(vectors))
        return super().iter_scores(vectors)

    def mean_vectors(self, rows: Any = None) -> Any:
        self.means.append(len(rows))
        return super().mean_vectors(rows)


def counting() -> Counting:
    index = Counting(TOY.index.store)
    index.passes, index.means = [], []
    return index


def test_rows_follow_the_loops_ids_and_missing_images_score_nothing() -> None:
    ids = np.concatenate([TOY.images.ids[::-1], [5]])
    cache = ScoreCache(TOY.index, WordEncoder(), ids, templates="plain", num_classes=3)
    (row,) = cache.rows([("fork",)])
    expected = TOY.index.scores(text_vector("fork")[None])[0]
    assert np.allclose(row[:-1], expected[::-1], atol=1e-6)
    assert row[-1] == -np.inf
    assert row.dtype == np.float32


def test_an_image_that_the_loop_repeats_scores_in_every_row() -> None:
    ids = np.repeat(TOY.images.ids[:3], 2)
    (row,) = ScoreCache(TOY.index, WordEncoder(), ids, templates="plain", num_classes=3).rows(
        [("car",)]
    )
    expected = TOY.index.scores(text_vector("car")[None])[0, :3]
    assert np.allclose(row, np.repeat(expected, 2), atol=1e-6)


def test_a_query_is_read_once_whatever_the_order() -> None:
    index = counting()
    cache = ScoreCache(index, WordEncoder(), TOY.images.ids, num_classes=3)
    first = cache.rows([("car",), ("fork",), ("car",)])
    again = cache.rows([("fork",), ("zebra",)])
    assert index.passes == [2, 1]
    assert again[0] is first[1]
    assert cache.rows([]) == []


def test_a_changed_index_is_read_again() -> None:
    index = counting()
    cache = ScoreCache(index, WordEncoder(), TOY.images.ids, num_classes=3)
    before = cache.rows([("car",)])[0].copy()
    other = make_toy_data(40, seed=9)
    index.store = other.index.store
    assert not np.allclose(cache.rows([("car",)])[0], before)
    assert index.passes == [1, 1]


def test_little_memory_means_half_precision_whatever_is_requested() -> None:
    index = counting()
    cache = ScoreCache(index, WordEncoder(), TOY.images.ids, num_classes=3, max_bytes=300)
    expected = ScoreCache(TOY.index, WordEncoder(), TOY.images.ids, num_classes=3).rows(
        [("car",), ("fork",)]
    )
    rows = cache.rows([("car",), ("fork",)])
    assert rows[0].dtype == np.float16
    assert np.allclose(rows, expected, atol=1e-3)
    assert cache.rows([("zebra",)])[0].dtype == np.float16
    cache.rows([("car",), ("fork",), ("zebra",)])
    cache.rows([("street",)])
    cache.rows([("car",)])
    assert index.passes == [2, 1, 1, 1]


def test_mean_vectors_that_do_not_fit_are_computed_for_the_images_asked_for() -> None:
    ids = np.concatenate([TOY.images.ids[::-1], [5]])
    kept, not_kept = counting(), counting()
    rows = np.array([40, 3, 0])  # the first is not in the index
    expected = np.append(TOY.index.mean_vectors()[::-1], np.zeros((1, TOY.index.dim)), axis=0)[rows]
    for index, max_bytes in ((kept, 1 << 20), (not_kept, 300)):
        cache = ScoreCache(index, WordEncoder(), ids, num_classes=3, max_bytes=max_bytes)
        for _ in range(2):
            np.testing.assert_array_equal(cache.mean_vectors(rows), expected)
    assert kept.means == [40]
    assert not_kept.means == [2, 2]


def test_other_encoders_and_other_data_sets_are_refused() -> None:
    class Other(WordEncoder):
        fingerprint = "other"

    with pytest.raises(IndexMismatch, match="words-64"):
        ScoreCache(TOY.index, Other(), TOY.images.ids, num_classes=3)
    with pytest.raises(InputError, match="was the index built on another split"):
        ScoreCache(TOY.index, WordEncoder(), [1, 2], num_classes=3).rows([("car",)])

"""Scores kept between rounds: the same numbers, fewer passes over the index."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from toy_data import WordEncoder, make_scenario, text_vector

from hardmine.errors import IndexMismatch, InputError
from hardmine.index.search.exact import ExactIndex
from hardmine.mining.scores import ScoreCache

WORLD = make_scenario(40)


class Counting(ExactIndex):
    """Counts how many vectors were asked for in each pass."""

    passes: list[int]

    def iter_scores(self, vectors: Any) -> Iterator[tuple[slice, Any]]:
        self.passes.append(len(vectors))
        return super().iter_scores(vectors)


def counting() -> Counting:
    index = Counting(WORLD.index.store)
    index.passes = []
    return index


def test_rows_follow_the_loops_ids_and_missing_images_score_nothing() -> None:
    ids = np.concatenate([WORLD.images.ids[::-1], [5]])
    book = ScoreCache(WORLD.index, WordEncoder(), ids, templates="plain")
    (row,) = book.rows([("fork",)])
    expected = WORLD.index.scores(text_vector("fork")[None])[0]
    assert np.allclose(row[:-1], expected[::-1], atol=1e-6)
    assert row[-1] == -np.inf
    assert row.dtype == np.float32


def test_an_image_that_the_loop_repeats_scores_in_every_row() -> None:
    ids = np.repeat(WORLD.images.ids[:3], 2)
    (row,) = ScoreCache(WORLD.index, WordEncoder(), ids, templates="plain").rows([("car",)])
    expected = WORLD.index.scores(text_vector("car")[None])[0, :3]
    assert np.allclose(row, np.repeat(expected, 2), atol=1e-6)


def test_a_query_is_read_once_whatever_the_order() -> None:
    index = counting()
    book = ScoreCache(index, WordEncoder(), WORLD.images.ids)
    first = book.rows([("car",), ("fork",), ("car",)])
    again = book.rows([("fork",), ("zebra",)])
    assert index.passes == [2, 1]
    assert again[0] is first[1]
    assert book.rows([]) == []


def test_a_changed_index_is_read_again() -> None:
    index = counting()
    book = ScoreCache(index, WordEncoder(), WORLD.images.ids)
    before = book.rows([("car",)])[0].copy()
    other = make_scenario(40, seed=9)
    index.store = other.index.store
    assert not np.allclose(book.rows([("car",)])[0], before)
    assert index.passes == [1, 1]


def test_little_memory_keeps_what_is_asked_for_in_half_precision() -> None:
    index = counting()
    book = ScoreCache(index, WordEncoder(), WORLD.images.ids, max_bytes=300)
    wide = ScoreCache(WORLD.index, WordEncoder(), WORLD.images.ids).rows([("car",), ("fork",)])
    rows = book.rows([("car",), ("fork",)])
    assert rows[0].dtype == np.float16
    assert np.allclose(rows, wide, atol=1e-3)
    book.rows([("zebra",)])
    book.rows([("car",)])
    assert index.passes == [2, 1, 1]


def test_other_encoders_and_other_data_sets_are_refused() -> None:
    class Other(WordEncoder):
        fingerprint = "other"

    with pytest.raises(IndexMismatch, match="words-64"):
        ScoreCache(WORLD.index, Other(), WORLD.images.ids)
    with pytest.raises(InputError, match="was the index built on another split"):
        ScoreCache(WORLD.index, WordEncoder(), [1, 2]).rows([("car",)])

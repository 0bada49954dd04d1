"""Evidence against ranks of SciPy and a plain sort; gathered once, and again where it must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import scipy.sparse
from given_scores import GivenScores
from scipy.stats import rankdata

from hardmine.mining.checked import CheckedRows
from hardmine.mining.evidence import (
    LABELLED,
    POOLED,
    SIMILAR,
    SUSPECTED,
    EvidenceCache,
    gather_evidence,
)
from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries


def labels_of(present: np.ndarray) -> Labels:
    nothing = scipy.sparse.csc_matrix(present.shape, dtype=bool)
    return Labels(scipy.sparse.csc_matrix(present), None, nothing, np.ones(len(present), bool))


@pytest.mark.parametrize("seed", range(3))
def test_shares_and_checked_hits_are_those_of_a_plain_ranking(seed: int) -> None:
    rng = np.random.default_rng(seed)
    present = rng.random(400) < 0.2
    # Few different values, so that many are equal.
    scores = (rng.integers(0, 30, 400) + 8 * present).astype(np.float32) / 50
    found = gather_evidence(scores, 0, labels_of(present[:, None]))
    labelled = found.roles == LABELLED
    assert np.array_equal(found.rows[labelled], np.flatnonzero(present))
    expected = (rankdata(scores[present]) - 0.5) / present.sum()
    assert found.shares[labelled] == pytest.approx(expected, abs=1e-12)
    best = np.lexsort((np.arange(400), -scores))[: found.checked]
    assert (found.checked, found.correct) == (present.sum(), present[best].sum())
    # No image left out is more similar than one that was taken.
    others = np.setdiff1d(np.flatnonzero(~present), found.rows)
    taken = found.scores[(found.roles == SIMILAR) | (found.roles == SUSPECTED)]
    assert len(taken) > 0
    assert scores[others].max() < taken.min()
    assert np.array_equal(found.scores, scores[found.rows])


@pytest.mark.parametrize("num_labelled", [0, 40])
def test_images_of_a_pool_with_equal_scores_are_treated_alike(num_labelled: int) -> None:
    rng = np.random.default_rng(0)
    once = rng.random(50).astype(np.float32)
    labelled = np.linspace(0, 1, num_labelled).astype(np.float32)
    scores = np.concatenate([labelled, once, once])  # every image of the pool twice
    known = np.arange(len(scores)) < num_labelled
    present = known & (scores > 0.5)
    nothing = scipy.sparse.csc_matrix((len(scores), 1), dtype=bool)
    labels = Labels(scipy.sparse.csc_matrix(present[:, None]), None, nothing, known)
    found = gather_evidence(scores, 0, labels, pool_share=0.05)  # 5 of 100: three of the pairs
    pooled = found.roles == POOLED
    best = np.sort(np.argsort(-once)[:3])
    expected = num_labelled + np.concatenate([best, 50 + best])
    assert found.rows[pooled].tolist() == expected.tolist()
    first, second = np.split(found.shares[pooled], 2)
    assert np.array_equal(first, second)
    assert np.array_equal(np.argsort(first), np.argsort(once[best]))
    if not num_labelled:
        ranks = rankdata(found.scores[pooled])
        np.testing.assert_allclose(found.shares[pooled], (ranks - 0.5) / len(ranks))


def test_an_image_of_a_pool_that_was_confirmed_counts_for_the_query_alone() -> None:
    scores = np.linspace(0.1, 0.2, 20).astype(np.float32)
    labels = Labels.unlabelled(20, 1)
    plain, confirmed = (
        gather_evidence(scores, 0, labels, pool_share=0.1, checked=CheckedRows(present=rows))
        for rows in ((), (19,))
    )
    assert (plain.rows.tolist(), plain.checked) == ([18, 19], 0)
    assert (confirmed.rows.tolist(), confirmed.checked, confirmed.correct) == ([17, 18], 1, 1)


class Counted(GivenScores):
    """Counts the rows of scores that were read."""

    read = 0

    def each(self, phrases: Sequence[tuple[str, ...]]) -> Iterator[np.ndarray]:
        self.read += len(phrases)
        return super().each(phrases)


def test_scores_are_read_once_until_the_index_changes_or_memory_runs_out() -> None:
    rng = np.random.default_rng(0)
    present = rng.random((50, 2)) < 0.3
    rows = {name: rng.random(50).astype(np.float32) for name in ("car", "fork", "fork at night")}
    scores = Counted(rows)
    names = [("car",), ("fork",)]
    cache = EvidenceCache(scores, labels_of(present), names)
    both = Queries((("fork",), ("fork at night",)), np.array([1, 1]), ("", "at night"), np.ones(2))
    car = Queries((("car",),), np.array([0]), ("",), np.ones(1))
    first = cache.of(both)
    assert all(kept is found for kept, found in zip(first, cache.of(both), strict=True))
    assert scores.read == 2
    cache.of(both, missing=0.0)
    assert scores.read == 4
    scores.version = "another"
    cache.of(both)
    assert scores.read == 6
    tight = EvidenceCache(scores, labels_of(present), names, max_bytes=1)
    for queries in (car, both, car):
        tight.of(queries)
    assert scores.read == 6 + 1 + 2 + 1

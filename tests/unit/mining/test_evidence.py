"""Evidence against ranks of SciPy and a plain sort; gathered once, and again where it must be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import scipy.sparse
from given_scores import GivenScores
from scipy.stats import rankdata

from hardmine.mining.evidence import (
    LABELLED,
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

"""The labelled share of an image, against labels that were taken away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse

from hardmine.mining import label_coverage
from hardmine.mining.label_coverage import LabelCoverage
from hardmine.mining.labels import Labels

NUM_IMAGES = 6000
RATES = np.array([0.5, 0.2, 0.05])


class FixedScores:
    """Scores given in advance; counts the rows of each request."""

    def __init__(self, scores: npt.NDArray[np.float64]) -> None:
        self.scores = scores
        self.version: object = object()
        self.requests: list[int] = []

    def rows(self, phrases: Sequence[tuple[str, ...]]) -> list[npt.NDArray[np.float64]]:
        self.requests.append(len(phrases))
        return [self.scores[int(name)] for (name,) in phrases]


def shown_and_scores(
    gap: float = 4.0, rates: npt.NDArray[np.float64] = RATES
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    """Which image shows which class, and scores that lie ``gap`` deviations apart by it."""
    rng = np.random.default_rng(0)
    shown = rng.random((NUM_IMAGES, len(rates))) < rates
    return shown, gap * shown.T + rng.standard_normal(shown.T.shape)


def labels_of(present: npt.NDArray[np.bool_], absent: Any = None) -> Labels:
    nothing = scipy.sparse.csc_matrix(present.shape, dtype=bool)
    return Labels(
        scipy.sparse.csc_matrix(present),
        None if absent is None else scipy.sparse.csc_matrix(absent),
        nothing,
        np.ones(len(present), bool),
    )


def coverage_of(labels: Labels, scores: FixedScores) -> LabelCoverage:
    phrases = tuple((str(row),) for row in range(labels.present.shape[1]))
    return LabelCoverage(labels, scores, phrases)  # type: ignore[arg-type]


def worth(labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    each = 1 / np.maximum(labels.num_present(), 1)
    return each, np.maximum(labels.objects() @ each, each.min())


def test_removed_labels_are_found_missing() -> None:
    shown, scores = shown_and_scores()
    kept = shown & (np.random.default_rng(1).random(shown.shape) < 0.6)
    labels = labels_of(kept)
    share = coverage_of(labels, FixedScores(scores)).label_share(0.4)
    each, labelled = worth(labels)
    taken = (shown & ~kept) @ each
    expected = labelled * (1 / share - 1)
    assert expected.sum() == pytest.approx(taken.sum(), rel=0.2)
    truth = labelled / (labelled + taken)
    assert np.corrcoef(share, truth)[0, 1] > 0.9
    assert share[taken > 0].mean() < share[taken == 0].mean() - 0.3
    assert (share > 0).all()
    assert (share <= 1).all()


def test_complete_labels_are_left_alone() -> None:
    shown, scores = shown_and_scores()
    share = coverage_of(labels_of(shown), FixedScores(scores)).label_share()
    some = shown.any(axis=1)
    assert share[some].mean() > 0.97
    assert (coverage_of(labels_of(shown), FixedScores(scores)).label_share(0.0) == 1).all()


def test_scores_without_information_leave_images_alike() -> None:
    shown, scores = shown_and_scores(gap=0.0)
    share = coverage_of(labels_of(shown), FixedScores(scores)).label_share()
    for pattern in np.unique(shown, axis=0):
        alike = share[(shown == pattern).all(axis=1)]
        assert np.ptp(alike) < 0.05


def test_a_rare_object_without_its_label_weighs_more() -> None:
    shown, scores = shown_and_scores()
    kept = shown.copy()
    common_shown = np.flatnonzero(shown[:, 0] & ~shown[:, 1] & ~shown[:, 2])
    of_rare, of_other = common_shown[0], common_shown[1]
    scores[2, of_rare] = scores[1, of_other] = 6.0
    share = coverage_of(labels_of(kept), FixedScores(scores)).label_share(0.2)
    assert share[of_rare] < share[of_other] < np.median(share[common_shown])


def test_an_image_that_is_said_to_be_empty_but_looks_full_has_little_labelled() -> None:
    shown, scores = shown_and_scores()
    empty = np.flatnonzero(~shown.any(axis=1))
    scores[1, empty[0]] = 6.0
    share = coverage_of(labels_of(shown), FixedScores(scores)).label_share(0.2)
    assert share[empty[0]] < 0.5 < np.median(share[empty])


def test_only_verified_absence_counts_under_federated_labels() -> None:
    shown, scores = shown_and_scores()
    kept = shown & (np.random.default_rng(1).random(shown.shape) < 0.6)
    verified = ~kept & (np.arange(NUM_IMAGES) < NUM_IMAGES // 2)[:, None]
    share = coverage_of(labels_of(kept, verified), FixedScores(scores)).label_share(0.4)
    assert (share[NUM_IMAGES // 2 :] == 1).all()
    assert share[: NUM_IMAGES // 2].min() < 0.5


def test_nothing_is_said_of_an_unlabelled_pool_nor_of_what_is_not_indexed() -> None:
    shown, scores = shown_and_scores()
    pool = Labels.unlabelled(NUM_IMAGES, 3)
    assert (coverage_of(pool, FixedScores(scores)).label_share(0.4) == 1).all()
    scores[:, 7] = -np.inf
    assert coverage_of(labels_of(shown), FixedScores(scores)).label_share(0.4)[7] == 1
    scores[:] = -np.inf
    assert (coverage_of(labels_of(shown), FixedScores(scores)).label_share(0.4) == 1).all()


def test_it_is_computed_once_until_the_index_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    shown, scores = shown_and_scores(rates=np.full(10, 0.1))
    fixed = FixedScores(scores)
    coverage = coverage_of(labels_of(shown), fixed)
    first = coverage.label_share(0.3)
    assert coverage.label_share(0.3) is first
    assert fixed.requests == [10]
    assert not np.array_equal(coverage.label_share(0.1), first)
    fixed.scores, fixed.version = scores + np.random.default_rng(2).random(scores.shape), object()
    assert not np.array_equal(coverage.label_share(0.3), first)
    monkeypatch.setattr(label_coverage, "_CHUNK", 3)
    fixed.scores, fixed.version = scores, object()
    assert np.array_equal(coverage.label_share(0.3), first)
    assert fixed.requests == [10, 10, 10, 3, 3, 3, 1]


def test_a_class_of_few_labelled_images_is_left_out() -> None:
    shown, scores = shown_and_scores()
    few = shown.copy()
    few[np.flatnonzero(shown[:, 2])[4:], 2] = False
    with_it = coverage_of(labels_of(few), FixedScores(scores)).label_share(0.4)
    without = coverage_of(labels_of(few[:, :2]), FixedScores(scores[:2])).label_share(0.4)
    no_rare = ~few[:, 2] & few[:, :2].any(axis=1)
    assert with_it[no_rare] == pytest.approx(without[no_rare])

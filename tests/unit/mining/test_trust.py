"""Trust and targets on cases small enough to check by eye."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from given_scores import Case

from hardmine.errors import InputError
from hardmine.mining.labels import Labels
from hardmine.mining.targets import (
    CONFUSER,
    HARD,
    HIT,
    KINDS,
    POSITIVE,
    SUSPECT,
    TargetRules,
    Targets,
)
from hardmine.mining.trust import Trust

ONE = np.array([0])


def labels(status: list[int]) -> Labels:
    """One class; 1 present, 0 absent, -1 not labelled at all."""
    known = np.array(status)[:, None]
    return Labels(
        scipy.sparse.csc_matrix(known == 1),
        None,
        scipy.sparse.csc_matrix((len(status), 1), dtype=bool),
        known[:, 0] >= 0,
    )


def trusted(factor: float = 1.0) -> Trust:
    return Trust(np.array([factor]), np.array([10]), np.array([factor]))


def row(*scores: float) -> np.ndarray:
    return np.array([scores], np.float32)


def by_image(targets: Targets) -> dict[int, tuple[str, float]]:
    return {
        int(image): (KINDS[kind], round(float(strength), 3))
        for image, kind, strength in zip(
            targets.image_rows, targets.kinds, targets.strengths, strict=True
        )
    }


def test_trust_is_the_precision_of_the_best_hits() -> None:
    # Four labelled images: the best ten of the thirteen known ones are checked.
    status = [1, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, -1]
    scores = row(*np.linspace(1, 0, 13), 2.0)
    trust = Case(scores, ONE, labels(status)).trust()
    assert trust.checked.tolist() == [10]
    assert trust.precision == pytest.approx([0.3])
    assert trust.factor == pytest.approx([0.3])
    # Below one in ten, hits are noise.
    for right, factor in ((2, 2 / 18), (1, 0.0)):
        status = [int(place < right or place >= 20) for place in range(38 - right)]
        trust = Case(row(*np.linspace(1, 0, len(status))), ONE, labels(status)).trust()
        assert trust.precision == pytest.approx([right / 18])
        assert trust.factor == pytest.approx([factor])


def test_few_checked_hits_are_pulled_towards_the_mean_of_all_queries() -> None:
    status = np.array([[1, 1], [0, 1], [0, 1], [0, 1]])
    both = Labels(
        scipy.sparse.csc_matrix(status == 1),
        None,
        scipy.sparse.csc_matrix((4, 2), dtype=bool),
        np.ones(4, bool),
    )
    scores = np.tile(np.float32([0.4, 0.3, 0.2, 0.1]), (2, 1))
    trust = Case(scores, np.array([0, 1]), both).trust()
    assert trust.precision == pytest.approx([(1 + 5 * 5 / 8) / 9, (4 + 5 * 5 / 8) / 9])


def test_without_labels_nothing_doubts_a_query() -> None:
    trust = Case(row(0.1, 0.2), ONE, labels([-1, -1])).trust()
    assert np.isnan(trust.precision[0])
    assert trust.factor.tolist() == [1.0]
    assert Case(np.zeros((0, 2)), np.zeros(0, int), labels([-1, -1])).trust().factor.size == 0


def test_federated_images_of_unknown_status_are_not_checked() -> None:
    known = Labels(
        scipy.sparse.csc_matrix(np.array([[1], [0], [0], [0]], bool)),
        scipy.sparse.csc_matrix(np.array([[0], [0], [0], [1]], bool)),
        scipy.sparse.csc_matrix((4, 1), dtype=bool),
        np.ones(4, bool),
    )
    scores = row(0.9, 0.8, 0.7, 0.1)
    assert Case(scores, ONE, known).trust().checked.tolist() == [2]
    targets = Case(scores, ONE, known).split(trusted())
    assert set(by_image(targets)) == {0}  # the two unknown ones are no confusers, 3 is not alike


def test_every_labelled_image_counts_and_the_least_typical_most() -> None:
    targets = Case(row(0.9, 0.5, 0.1, 0.0), ONE, labels([1, 1, 1, 0])).split(trusted())
    assert by_image(targets) == {
        0: ("positive", 0.792),
        1: ("positive", 0.875),
        2: ("hard", 0.958),
    }


def test_an_untrusted_query_leaves_what_labels_alone_say() -> None:
    targets = Case(row(0.9, 0.5, 0.1, 0.8), ONE, labels([1, 1, 1, 0])).split(trusted(0.0))
    assert by_image(targets) == dict.fromkeys(range(3), ("positive", 0.75))


def test_a_labelled_image_that_is_not_in_the_index_keeps_the_middle() -> None:
    targets = Case(row(0.9, -np.inf), ONE, labels([1, 1])).split(trusted())
    assert by_image(targets)[1] == ("positive", 0.875)
    assert np.isnan(targets.scores[1])


def test_confusers_are_the_most_alike_and_no_more_than_half_the_labelled_and_only_listed() -> None:
    scores = row(0.9, 0.8, 0.3, 0.2, 0.85, 0.7, 0.5, 0.1)
    status = [1, 1, 1, 1, 0, 0, 0, 0]
    targets = Case(scores, ONE, labels(status)).split(trusted())
    confusers = targets.take(targets.kinds == CONFUSER)
    assert by_image(confusers) == {4: ("confuser", 0.0)}


def test_suspects_are_reported_but_not_boosted() -> None:
    rng = np.random.default_rng(0)
    true = rng.random(2000) < 0.3
    scores = (rng.normal(size=2000) + 4 * true).astype(np.float32)[None]
    status = (true & (rng.random(2000) > 0.1)).astype(int).tolist()
    found = Case(scores, ONE, labels(status)).split(trusted())
    suspects = found.take(found.kinds == SUSPECT)
    assert len(suspects) > 20
    assert true[suspects.image_rows].mean() > 0.9
    assert (suspects.strengths == 0).all()


def test_a_pool_gives_its_best_hits_by_rank_where_nothing_is_labelled() -> None:
    pool = Case(row(0.1, 0.4, 0.3, 0.2), ONE, labels([-1] * 4))
    targets = pool.split(trusted(), rules=TargetRules(pool_share=0.5))
    assert by_image(targets) == {1: ("hit", 0.75), 2: ("hit", 0.25)}
    assert (targets.kinds == HIT).all()


def test_a_context_takes_the_labelled_images_that_its_text_adds_most_to() -> None:
    base = row(0.9, 0.8, 0.2, 0.1, 0.9)
    night = row(0.8, 0.9, 0.4, 0.1, 1.9)
    case = Case(night, ONE, labels([1, 1, 1, 1, 0]), contexts=("at night",), base_scores=base)
    targets = case.split(trusted())
    assert by_image(targets) == {2: ("hard", 0.583)}


def test_boosts_of_a_class_add_up_and_of_classes_the_largest_counts() -> None:
    targets = Targets(
        np.array([0, 0, 1, 2], np.int32),
        np.array([0, 1, 1, 1]),
        np.full(4, POSITIVE, np.int8),
        np.array([0.5, 0.5, 0.5, 0.9], np.float32),
        np.zeros(4, np.float32),
    )
    need = np.array([1.0, 0.8, 0.5])
    apart = targets.boost(need, np.array([0, 1, 2]), 3)
    assert apart == pytest.approx([0.5, 0.5, 0.0], abs=1e-6)
    together = targets.boost(need, np.array([0, 0, 1]), 3)
    assert together == pytest.approx([0.5, 1 - 0.5 * 0.6, 0.0], abs=1e-6)
    assert Targets.empty().boost(np.zeros(0), np.zeros(0, int), 2).tolist() == [0, 0]


def test_counts_by_kind() -> None:
    targets = Targets(
        np.array([1], np.int32),
        np.array([4]),
        np.array([HARD], np.int8),
        np.float32([1]),
        np.float32([0]),
    )
    assert targets.counts(3).tolist() == [[0] * 5, [0, 1, 0, 0, 0], [0] * 5]


def test_rules_and_targets_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"mistaken must lie in \[0, 1\], got 2"):
        TargetRules(mistaken=2)
    with pytest.raises(InputError, match="missing must lie"):
        TargetRules(missing="some")
    with pytest.raises(InputError):
        TargetRules(templates="no such set")
    with pytest.raises(InputError, match="strengths"):
        Targets(
            np.zeros(1, np.int32),
            np.zeros(1, int),
            np.zeros(1, np.int8),
            np.float32([np.nan]),
            np.zeros(1, np.float32),
        )

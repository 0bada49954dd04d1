"""Balance factors: what classes contribute that validation misses, and confusion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import scipy.sparse

from hardmine.mining.balance import (
    alike_factors,
    balance_factors,
    class_balance,
    class_ratios,
)
from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries
from hardmine.mining.targets import HIT, Targets

# Twelve cars, six buses, three trams, each of them beside a car.
SHOWN = np.repeat(np.array([[1, 0, 0], [0, 1, 0], [1, 0, 1]], bool), [12, 6, 3], axis=0)
CAR, BUS, TRAM = range(3)
NO_QUERIES = Queries((), np.zeros(0, np.int64), (), np.zeros(0))


def factors_of(
    *mistaken_for: tuple[int, int, float],
    shown: npt.NDArray[np.bool_] = SHOWN,
    queries: Queries = NO_QUERIES,
    targets: Targets | None = None,
    pool: int = 0,
    ratios: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Factors where a pool comes last and all else is labelled."""
    shown = np.concatenate([shown, np.zeros((pool, 3), bool)])
    nothing = scipy.sparse.csc_matrix(shown.shape, dtype=bool)
    labelled = np.arange(len(shown)) < len(shown) - pool
    return balance_factors(
        queries,
        Targets.empty() if targets is None else targets,
        Labels(scipy.sparse.csc_matrix(shown), None, nothing, labelled),
        ratios=ratios,
        mistaken_for=mistaken_for,
    )


def drawn(
    factors: npt.NDArray[np.float64], column: int, shown: npt.NDArray[np.bool_] = SHOWN
) -> float:
    """How often objects of a class are drawn."""
    return float(factors @ shown[:, column])


def test_a_class_is_worth_what_validation_misses_of_it_over_what_training_shows() -> None:
    shown, some = np.array([900, 90, 10, 0]), np.full(4, 50)
    # Missed as often as shown: nothing to do. Twice as often: about 2, and 20 at most.
    assert class_ratios(shown, some, shown) == pytest.approx(1.0)
    few, twice, seldom, none = class_ratios(np.array([780, 180, 40, 0]), some, shown).tolist()
    assert (few, twice) == (pytest.approx(780 / 900, rel=0.03), pytest.approx(2, rel=0.03))
    assert 2 < seldom < 4
    assert none == 1
    ones = np.ones(2)
    assert class_ratios(np.array([0, 1000]), ones, np.array([999, 1])).tolist() == [1 / 20, 20]
    # Chance: with few objects a ratio stays near 1, whatever it is.
    assert class_ratios(np.array([1, 3]), ones, np.array([99, 1])) == pytest.approx(1, abs=0.6)
    assert class_ratios(np.zeros(2), ones, np.array([5, 5])).tolist() == [1, 1]


def test_without_training_objects_of_validations_classes_no_ratio_is_known() -> None:
    """However many objects validation misses: that is its size, and no ratio."""
    for count in (5, 1000):
        missed, labelled = np.array([count, count, 0]), np.array([2 * count, count, 0])
        assert class_ratios(missed, labelled, np.zeros(3)).tolist() == [1, 1, 1]
        assert class_ratios(missed, labelled, np.array([0, 0, 50])).tolist() == [1, 1, 1]


def test_an_unlabelled_pool_alone_is_drawn_as_it_is() -> None:
    queries = Queries((("bus",),), np.array([BUS]), ("",), np.array([1.0]))
    hits = Targets(
        np.zeros(2, np.int32),
        np.array([0, 1]),
        np.full(2, HIT, np.int8),
        np.array([1.0, 0.25], np.float32),
        np.zeros(2, np.float32),
    )
    for ratios in (None, np.ones(3)):
        factors = factors_of(shown=SHOWN[:0], queries=queries, targets=hits, pool=3, ratios=ratios)
        assert factors.tolist() == [1, 1, 1]


def test_of_a_class_that_validation_does_not_show_nothing_is_known() -> None:
    missed, shown = np.array([40, 20, 0, 0]), np.array([200, 100, 500, 300])
    labelled = np.array([60, 30, 0, 80])
    assert class_ratios(missed, labelled, shown)[2] == 1
    kept = [0, 1, 3]
    rest = class_ratios(missed[kept], labelled[kept], shown[kept])
    assert np.array_equal(class_ratios(missed, labelled, shown)[kept], rest)
    assert rest[2] < 0.3 < rest[0]


def test_images_are_worth_their_objects_by_class() -> None:
    counts = np.array([[2, 0, 0], [0, 1, 0], [1, 0, 3], [0, 0, 0]])
    nothing = scipy.sparse.csc_matrix(counts.shape, dtype=bool)
    labels = Labels(
        scipy.sparse.csc_matrix(counts > 0),
        None,
        nothing,
        np.ones(4, bool),
        counts=scipy.sparse.csc_matrix(counts),
    )
    ratios = np.array([0.5, 2.0, 1.0])
    worth = np.array([1.0, 2.0, 3.5])
    expected = np.append(worth / worth.mean(), 1.0)
    np.testing.assert_allclose(class_balance(labels, ratios), expected)
    # Where validation does not tell, a class counts by one over the root of its objects.
    worth = counts[:3] @ (1 / np.sqrt(counts.sum(axis=0)))
    np.testing.assert_allclose(class_balance(labels, None)[:3], worth / worth.mean())


def test_all_classes_alike_and_the_expected_worth_in_a_pool() -> None:
    first = len(SHOWN)
    queries = Queries(
        (("bus",), ("bus", "night")), np.array([BUS, BUS]), ("", "at night"), np.ones(2)
    )
    hits = Targets(
        np.array([0, 1], np.int32),
        np.array([first, first + 1]),
        np.full(2, HIT, np.int8),
        np.array([0.5, 0.5], np.float32),
        np.zeros(2, np.float32),
    )
    shown = np.concatenate([SHOWN, np.zeros((2, 3), bool)])
    nothing = scipy.sparse.csc_matrix(shown.shape, dtype=bool)
    labels = Labels(scipy.sparse.csc_matrix(shown), None, nothing, np.arange(len(shown)) < first)
    factors = alike_factors(queries, hits, labels)
    assert factors[:first].mean() == pytest.approx(1)
    # Each class is drawn once; cars come with trams as well, and trams with cars.
    by_class = factors[:first] @ SHOWN
    np.testing.assert_allclose(by_class / by_class[BUS], [1 + 15 / 15, 1, 1 + 3 / 15])
    bus = factors[:first][SHOWN[:, BUS]][0]
    np.testing.assert_allclose(factors[first:], [1 + bus / 2, 1])


def test_a_class_that_is_shown_less_is_raised_by_all_that_it_is_mistaken_for() -> None:
    plain = factors_of()
    # Cars come with trams as well, so they are shown most.
    assert drawn(plain, BUS) < drawn(plain, TRAM) < drawn(plain, CAR)
    to_tram = drawn(plain, TRAM) / drawn(plain, BUS)
    to_car = drawn(plain, CAR) / drawn(plain, BUS)
    bus = SHOWN[:, BUS]

    raised = factors_of((BUS, TRAM, 1.0))
    np.testing.assert_allclose(drawn(raised, BUS), drawn(raised, TRAM))
    assert np.array_equal(raised[~bus], plain[~bus])

    raised = factors_of((BUS, CAR, 0.25), (BUS, TRAM, 0.5))
    np.testing.assert_allclose(raised[bus], plain[bus] * (0.25 * to_car + 0.5 * to_tram + 0.25))


def test_a_class_that_is_shown_as_often_is_left_alone() -> None:
    assert np.array_equal(factors_of((TRAM, BUS, 1.0), (CAR, TRAM, 0.5)), factors_of())


def test_an_image_of_two_classes_is_raised_by_the_larger_factor() -> None:
    together = np.concatenate([SHOWN, [[False, True, True]]])
    plain = factors_of(shown=together)
    cars, buses, trams = (drawn(plain, column, together) for column in (CAR, BUS, TRAM))
    raised = factors_of((BUS, CAR, 1.0), (TRAM, CAR, 0.5), shown=together)
    more, less = cars / buses, (cars / trams + 1) / 2
    assert more > less > 1
    np.testing.assert_allclose(raised[-1], plain[-1] * more)
    np.testing.assert_allclose(raised[-2], plain[-2] * less)


def test_an_image_of_a_pool_is_raised_as_far_as_it_shows_the_class() -> None:
    queries = Queries((("bus",),), np.array([BUS]), ("",), np.array([1.0]))
    first = len(SHOWN)
    hits = Targets(
        np.zeros(2, np.int32),
        np.array([first, first + 1]),
        np.full(2, HIT, np.int8),
        np.array([1.0, 0.25], np.float32),
        np.zeros(2, np.float32),
    )
    settings: dict[str, Any] = {"queries": queries, "targets": hits, "pool": 3}
    plain, raised = factors_of(**settings), factors_of((BUS, CAR, 0.5), **settings)
    ratio = raised / plain
    bus = ratio[:first][SHOWN[:, BUS]][0]
    assert bus > 1
    np.testing.assert_allclose(ratio[first:], [bus, 1 + (bus - 1) / 4, 1.0])
    in_context = {**settings, "queries": replace(queries, contexts=("small",))}
    assert np.array_equal(factors_of((BUS, CAR, 0.5), **in_context)[first:], np.ones(3))


def test_a_class_that_no_image_shows_is_not_raised() -> None:
    without = np.where([False, False, True], False, SHOWN)
    assert np.isfinite(factors_of((TRAM, CAR, 1.0), shown=without)).all()
    assert np.array_equal(factors_of((TRAM, CAR, 1.0), shown=without), factors_of(shown=without))


def test_no_factor_leaves_the_limits() -> None:
    seldom = np.concatenate([np.eye(3, dtype=bool)[[CAR] * 5000 + [BUS]], SHOWN])
    factors = factors_of((BUS, CAR, 1.0), shown=seldom, ratios=np.array([1.0, 20.0, 1.0]))
    assert factors.max() <= 20
    assert factors.min() >= 1 / 20

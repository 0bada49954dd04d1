"""A boost that AP does not respond to is reduced, and comes back when it does."""

from __future__ import annotations

import json

import numpy as np
import pytest

from hardmine.mining.assess import Patience


def run(aps: list[float], patience: int | None = 2) -> list[float]:
    """Factors of one class, boosted in every round."""
    state, factors = Patience.fresh(1), []
    for ap in aps:
        state = state.after(np.array([ap]))
        factors.append(float(state.factor(patience)[0]))
        state = Patience(state.best, state.waited, np.array([True]))
    return factors


@pytest.mark.parametrize(
    ("aps", "factors"),
    [
        ([], []),
        ([0.1, 0.1, 0.1, 0.1, 0.1], [1, 1, 0.5, 0.25, 0.125]),
        ([0.1, 0.2, 0.3, 0.4], [1, 1, 1, 1]),
        ([0.1, 0.1, 0.1, 0.2, 0.2], [1, 1, 0.5, 1, 1]),
        ([0.3, 0.2, 0.25, 0.29], [1, 1, 0.5, 0.25]),
        ([0.1, np.nan, np.nan, 0.1], [1, 1, 1, 1]),
        ([0.1, 0.101, 0.102, 0.103], [1, 1, 0.5, 0.25]),
        ([0.1] * 9, [1, 1, 0.5, 0.25, 0.125, 0.1, 0.1, 0.1, 0.1]),
    ],
    ids=["none", "stuck", "rising", "rises late", "fell", "unknown", "hardly", "least"],
)
def test_factors(aps: list[float], factors: list[float]) -> None:
    assert run(aps) == pytest.approx(factors)


def test_no_patience_limit_never_fades() -> None:
    assert run([0.1] * 6, patience=None) == [1.0] * 6


def test_a_class_left_alone_is_forgiven() -> None:
    state = Patience(np.array([0.5]), np.array([3]), np.array([False]))
    assert state.after(np.array([0.4])).waited.tolist() == [2]


def test_the_state_survives_json() -> None:
    state = Patience(np.array([np.nan, 0.25]), np.array([0, 3]), np.array([False, True]))
    again = Patience.from_state(json.loads(json.dumps(state.to_state())))
    assert np.array_equal(again.best, state.best, equal_nan=True)
    assert again.waited.tolist() == [0, 3]
    assert again.boosted.tolist() == [False, True]

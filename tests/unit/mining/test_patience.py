"""Boosts that do not help are reduced; noise alone neither starts nor ends that.

Each simulation draws AP = truth + noise for many classes and rounds, all boosted.
"""

from __future__ import annotations

import json
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from hardmine.mining.assess import Patience

ROUNDS = 40


def simulate(
    truth: Callable[[npt.NDArray[np.int64]], npt.NDArray[np.float64]],
    *,
    noise: float | npt.NDArray[np.float64] = 0.02,
    classes: int = 100,
    patience: int | None = 3,
    num_instances: npt.NDArray[np.int64] | None = None,
    seed: int = 0,
) -> npt.NDArray[np.float64]:
    """(ROUNDS, classes) factors of classes with this true AP by round."""
    rng = np.random.default_rng(seed)
    expected = truth(np.arange(ROUNDS))[:, None] * np.ones(classes)
    ap = expected + noise * rng.normal(size=expected.shape)
    ap = np.where(expected > 0, ap.clip(0, 1), 0.0)
    state, factors = Patience.fresh(classes), []
    for row in ap:
        state = state.after(row)
        factors.append(state.factor(patience, num_instances))
        state = Patience(state.ap, state.was_boosted, np.ones(classes, bool))
    return np.array(factors)


def test_a_class_that_truly_rises_is_hardly_ever_muted() -> None:
    assert (simulate(lambda r: 0.1 + 0.002 * r) < 1).mean() <= 0.05
    assert (simulate(lambda r: 0.1 + 0.004 * r) < 1).mean() <= 0.01
    # Also where no other class tells how large the noise is.
    alone = [simulate(lambda r: 0.1 + 0.002 * r, classes=1, seed=seed) for seed in range(100)]
    assert (np.array(alone) < 1).mean() <= 0.05


def test_a_hopeless_class_is_muted_and_noise_does_not_bring_it_back() -> None:
    factors = simulate(lambda r: 0.2 + 0.0 * r)
    assert (factors[15:] < 1).mean() >= 0.7
    assert (factors[25:] == 0.1).mean() >= 0.7
    assert (factors >= 0.1).all()


def test_a_class_that_has_not_begun_to_learn_is_not_muted() -> None:
    assert (simulate(lambda r: 0.0 * r, noise=0.0) == 1).all()
    late = simulate(lambda r: np.where(r < 10, 0.0, 0.01 * (r - 10)), noise=0.002)
    assert (late < 1).mean() <= 0.05


def test_a_class_that_fell_and_recovers_is_not_muted() -> None:
    factors = simulate(lambda r: np.where(r < 6, 0.3, 0.1 + 0.02 * (r - 6)))
    assert (factors < 1).mean() <= 0.05


def test_a_late_jump_ends_the_muting() -> None:
    factors = simulate(lambda r: 0.2 + 0.1 * (r > 25))
    assert (factors[25] < 1).mean() > 0.7
    assert (factors[28:] < 1).mean() <= 0.05


def test_noisy_classes_are_judged_by_their_own_noise() -> None:
    noise = np.where(np.arange(100) < 50, 0.05, 0.01)
    rising = simulate(lambda r: 0.1 + 0.002 * r, noise=noise) < 1
    assert rising[:, :50].mean() <= 0.05
    assert rising[:, 50:].mean() <= 0.05
    # Of four objects, one more or less moves AP by a quarter: no trend can be seen.
    few = simulate(lambda r: 0.2 + 0.0 * r, num_instances=np.full(100, 4))
    assert (few == 1).all()


def run(aps: list[float], patience: int | None = 2) -> list[float]:
    """Factors of one class without noise, boosted in every round."""
    state, factors = Patience.fresh(1), []
    for ap in aps:
        state = state.after(np.array([ap]))
        factors.append(float(state.factor(patience)[0]))
        state = Patience(state.ap, state.was_boosted, np.array([True]))
    return factors


@pytest.mark.parametrize(
    ("aps", "factors"),
    [
        ([], []),
        ([0.1] * 8, [1, 1, 1, 0.5, 0.25, 0.125, 0.1, 0.1]),
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [1] * 6),
        ([0.1, np.nan, np.nan, 0.1, np.nan, 0.1], [1] * 6),  # three known: too few
        ([0.0] * 8, [1] * 8),
    ],
    ids=["none", "stuck", "rising", "unknown", "not begun"],
)
def test_factors_without_noise(aps: list[float], factors: list[float]) -> None:
    assert run(aps) == pytest.approx(factors)


def test_no_patience_limit_never_mutes() -> None:
    assert run([0.1] * 9, patience=None) == [1.0] * 9


def test_a_class_that_was_not_boosted_is_not_muted() -> None:
    state = Patience.fresh(1)
    for _ in range(10):
        state = state.after(np.array([0.1]))
    assert state.factor(3).tolist() == [1.0]
    assert len(state.ap) == 10
    for _ in range(30):
        state = state.after(np.array([0.1]))
    assert len(state.ap) == 30


@pytest.mark.parametrize("rounds", [0, 3])
def test_the_state_survives_json(rounds: int) -> None:
    state = Patience.fresh(2)
    for row in range(rounds):
        state = state.after(np.array([np.nan, 0.1 * row]))
        state = Patience(state.ap, state.was_boosted, np.array([False, True]))
    again = Patience.from_state(json.loads(json.dumps(state.to_state())))
    assert np.array_equal(again.ap, state.ap, equal_nan=True)
    assert np.array_equal(again.was_boosted, state.was_boosted)
    assert np.array_equal(again.boosted, state.boosted)
    assert again.after(np.array([0.1, 0.2])).ap.shape == (rounds + 1, 2)

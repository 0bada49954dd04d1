"""Diminishing returns: checked against the equation that the weights solve, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from hardmine.mining.exposure import Exposure, diminish


@pytest.mark.parametrize("passes", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("scale", [0.5, 4.0, 50.0])
def test_draws_follow_a_rate_that_falls_with_each_draw(passes: float, scale: float) -> None:
    rng = np.random.default_rng(0)
    weights = np.concatenate([np.exp(rng.normal(0, 1, 50)), [0.0]])
    extra = rng.normal(0, 2 * scale, 51)
    drawn, steps = np.zeros(51), 20_000
    for _ in range(steps):
        rate = weights * np.exp(-(extra + drawn) / scale)
        drawn += passes / steps * rate / rate.mean()
    discounted = diminish(weights, extra, passes=passes, scale=scale)
    assert discounted.mean() == pytest.approx(weights.mean())
    assert discounted[-1] == 0
    np.testing.assert_allclose(discounted / discounted.mean() * passes, drawn, rtol=0.02, atol=1e-3)


def test_a_large_scale_leaves_the_weights() -> None:
    weights = np.exp(np.random.default_rng(1).uniform(0, 3, 1000))
    np.testing.assert_allclose(diminish(weights, None, passes=1.0, scale=1e9), weights, rtol=1e-6)
    alike = diminish(np.full(100, 0.1), None, passes=5.0, scale=2.0)
    assert (alike == alike[0]).all()


def test_a_large_exposure_never_breaks_the_numbers() -> None:
    extra = np.array([1e5, 0.0, -1e5])
    discounted = diminish(np.array([10.0, 1.0, 1.0]), extra, passes=1.0, scale=3.0)
    assert np.isfinite(discounted).all()
    assert discounted.tolist() == pytest.approx([0, 0, 12])


def test_exposures_add_up_and_nothing_is_drawn_backwards() -> None:
    one, two = np.array([1.0, 3.0]), np.array([2.0, 1.0])
    extra = Exposure().after(4.0, None)
    assert (extra.passes, extra.extra_draws) == (4.0, None)
    extra = extra.after(6.0, one).after(9.0, two)
    np.testing.assert_allclose(extra.extra_draws, [0, 0], atol=1e-12)
    back = extra.after(5.0, one)
    assert back.passes == 5.0
    assert back.extra_draws is extra.extra_draws

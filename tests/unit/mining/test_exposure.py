"""Weights that fade with the draws: held against the equation they solve, step by step."""

from __future__ import annotations

import numpy as np
import pytest

from hardmine.mining.exposure import Exposure, fade_weights


@pytest.mark.parametrize("ahead", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("fade", [0.5, 4.0, 50.0])
def test_draws_are_those_of_a_rate_that_falls_with_each_of_them(ahead: float, fade: float) -> None:
    rng = np.random.default_rng(0)
    weights = np.concatenate([np.exp(rng.normal(0, 1, 50)), [0.0]])
    lead = rng.normal(0, 2 * fade, 51)
    drawn, steps = np.zeros(51), 20_000
    for _ in range(steps):
        rate = weights * np.exp(-(lead + drawn) / fade)
        drawn += ahead / steps * rate / rate.mean()
    faded = fade_weights(weights, lead, ahead=ahead, fade=fade)
    assert faded.mean() == pytest.approx(weights.mean())
    assert faded[-1] == 0
    np.testing.assert_allclose(faded / faded.mean() * ahead, drawn, rtol=0.02, atol=1e-3)


def test_no_fading_to_speak_of_leaves_the_weights() -> None:
    weights = np.exp(np.random.default_rng(1).uniform(0, 3, 1000))
    np.testing.assert_allclose(fade_weights(weights, None, ahead=1.0, fade=1e9), weights, rtol=1e-6)
    alike = fade_weights(np.full(100, 0.1), None, ahead=5.0, fade=2.0)
    assert (alike == alike[0]).all()


def test_a_far_lead_is_waited_out_and_never_breaks_the_numbers() -> None:
    lead = np.array([1e5, 0.0, -1e5])
    faded = fade_weights(np.array([10.0, 1.0, 1.0]), lead, ahead=1.0, fade=3.0)
    assert np.isfinite(faded).all()
    assert faded.tolist() == pytest.approx([0, 0, 12])


def test_leads_add_up_over_weights_and_nothing_is_drawn_backwards() -> None:
    one, two = np.array([1.0, 3.0]), np.array([2.0, 1.0])
    lead = Exposure().after(4.0, None)
    assert (lead.passes, lead.draws) == (4.0, None)
    lead = lead.after(6.0, one).after(9.0, two)
    np.testing.assert_allclose(lead.draws, [0, 0], atol=1e-12)
    back = lead.after(5.0, one)
    assert back.passes == 5.0
    assert back.draws is lead.draws

"""How much AP classes lose in a context: shrinkage towards what all of them lose."""

from __future__ import annotations

import numpy as np
import pytest

from hardmine.mining.contexts import shares_lost


def test_a_loss_that_all_classes_share_is_given_to_each() -> None:
    rng = np.random.default_rng(0)
    outside = rng.uniform(0.1, 0.6, 40)
    errors = np.full(40, 0.08)
    gaps = 0.4 * outside + rng.normal(0, errors)
    lost = shares_lost(gaps, errors, outside)
    # Alone half of them could be chance; together they are not.
    assert (gaps < 1.645 * errors).sum() > 10
    assert np.abs(lost - 0.4).mean() < np.abs(gaps / outside - 0.4).mean() / 3
    assert lost.min() > 0.2


def test_a_loss_of_one_class_stays_its_own() -> None:
    gaps = np.array([0.5, 0.0, 0.01, -0.01, 0.0])
    lost = shares_lost(gaps, np.full(5, 0.02), np.full(5, 0.6))
    assert lost[0] == pytest.approx(0.5 / 0.6, abs=0.05)
    assert (lost[1:] == 0).all()


def test_where_nothing_is_lost_need_stays_small() -> None:
    rng = np.random.default_rng(1)
    lost = np.array(
        [
            shares_lost(rng.normal(0, 0.08, 36), np.full(36, 0.08), np.full(36, 0.3)).mean()
            for _ in range(200)
        ]
    )
    # The common loss has an error of 0.08 / 6 / 0.3 = 4 %, half the time it is a gain.
    assert lost.mean() < 0.02
    assert lost.max() < 0.15


def test_a_class_that_was_not_measured_follows_the_others() -> None:
    lost = shares_lost(
        np.array([0.2, 0.22, 0.0]), np.array([0.02, 0.02, np.inf]), np.array([0.5, 0.5, 0.4])
    )
    assert lost[2] == pytest.approx(0.42, abs=0.02)


def test_a_class_that_is_never_found_has_nothing_to_lose() -> None:
    lost = shares_lost(
        np.array([0.2, 0.2, 0.0]), np.array([0.02, 0.02, np.inf]), np.array([0.5, 0.5, 0.0])
    )
    assert lost == pytest.approx([0.4, 0.4, 0.0], abs=0.01)


def test_one_class_alone_keeps_its_own_estimate() -> None:
    assert shares_lost(np.array([0.3]), np.array([0.1]), np.array([0.6])) == pytest.approx(
        0.5, 0.01
    )
    assert shares_lost(np.array([-0.3]), np.array([0.1]), np.array([0.6])).tolist() == [0]
    assert shares_lost(np.zeros(0), np.zeros(0), np.zeros(0)).shape == (0,)

"""Scores to probabilities, against scikit-learn and known mixtures."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from hardmine.mining.calibration import calibrate


def test_presence_is_a_logistic_fit_as_scikit_learn_makes_it() -> None:
    rng = np.random.default_rng(0)
    present, absent = rng.normal(0.3, 0.05, 2000), rng.normal(0.2, 0.05, 8000)
    ours = calibrate(present, absent)
    x = np.concatenate([present, absent])[:, None]
    y = np.repeat([1, 0], [2000, 8000])
    theirs = LogisticRegression(C=1e9, max_iter=1000).fit(x, y)
    grid = np.linspace(0.1, 0.4, 31)
    expected = theirs.predict_proba(grid[:, None])[:, 1]
    assert np.abs(ours.presence(grid) - expected).max() < 0.01


@pytest.mark.parametrize("gap", [0.0, 0.5, 5.0])
def test_presence_never_falls_with_the_score(gap: float) -> None:
    rng = np.random.default_rng(1)
    fitted = calibrate(rng.normal(gap, 1, 50), rng.normal(0, 1, 200))
    assert (np.diff(fitted.presence(np.linspace(-3, 8, 100))) >= 0).all()


def test_a_query_that_ranks_the_wrong_way_says_nothing() -> None:
    fitted = calibrate(np.linspace(0, 1, 30), np.linspace(2, 3, 90))
    assert fitted.slope == 0
    # An image that is not in the index shows nothing.
    assert fitted.presence([0.0, 3.0, -np.inf]) == pytest.approx([31 / 122, 31 / 122, 0])


@pytest.mark.parametrize(
    ("present", "absent"),
    [([0.3], []), ([0.3], [0.3]), ([0.3, 0.3], [0.3] * 5), ([0.4], [0.1]), ([0.2] * 3, [0.1] * 9)],
    ids=["no absent", "one score", "all alike", "one each", "separable"],
)
def test_few_images_give_sober_probabilities(present: list[float], absent: list[float]) -> None:
    chances = calibrate(present, absent).presence([0.1, 0.2, 0.3, 0.4])
    assert np.isfinite(chances).all()
    assert (chances > 0).all()
    assert (chances < 1).all()


def test_closeness_is_the_share_of_labelled_images_below() -> None:
    fitted = calibrate([0.4, 0.1, 0.3, 0.2], [0.0])
    assert fitted.closeness([0.05, 0.2, 0.25, 0.9]).tolist() == [0, 0.25, 0.5, 1]


def test_missing_labels_are_as_probable_as_they_are() -> None:
    rng = np.random.default_rng(2)
    true = rng.random(40_000) < 0.2
    scores = rng.normal(np.where(true, 2.5, 0), 1)
    labelled = true & (rng.random(len(true)) >= 0.1)
    fitted = calibrate(scores[labelled], scores[~labelled])
    chance = fitted.missing(scores[~labelled])
    assert fitted.label_rate == pytest.approx(0.9, abs=0.03)
    for low, high in ((0.2, 0.4), (0.4, 0.7), (0.7, 1.01)):
        chosen = (chance >= low) & (chance < high)
        assert true[~labelled][chosen].mean() == pytest.approx(chance[chosen].mean(), abs=0.15)


def test_a_stated_share_of_missing_labels_is_taken_as_it_is() -> None:
    assert calibrate([0.5], [0.1], missing=0.3).label_rate == pytest.approx(0.7)
    assert calibrate([0.5], [0.1], missing=0.0).missing([9.0]).tolist() == [0.0]

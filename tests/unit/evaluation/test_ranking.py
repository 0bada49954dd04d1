"""AP of rankings against scikit-learn, a slow direct computation, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from hardmine.errors import InputError
from hardmine.evaluation.ranking import (
    average_precision,
    average_precision_at,
    rank_hits,
    ranking_order,
    recall_at,
)


def rankings(seed: int, classes: int = 12, images: int = 300, share: float = 0.1):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(classes, images)).astype(np.float32), rng.random(
        (classes, images)
    ) < share


@pytest.mark.parametrize("share", [0.005, 0.1, 0.6])
def test_ap_is_scikit_learns(share: float) -> None:
    scores, relevant = rankings(0, share=share)
    got = average_precision(rank_hits(scores, relevant, None))
    for row in range(len(scores)):
        if relevant[row].any():
            assert got[row] == pytest.approx(average_precision_score(relevant[row], scores[row]))
        else:
            assert np.isnan(got[row])


def slow_ap_at(scores, relevant, ignored, k, divisor):
    """The definition, image by image: worst case among equal scores."""
    places = [place for place in range(len(scores)) if not ignored[place]]
    places.sort(key=lambda place: (-scores[place], relevant[place]))
    total, hits = 0.0, 0
    for rank, place in enumerate(places[:k], start=1):
        if relevant[place]:
            hits += 1
            total += hits / rank
    num_relevant = sum(bool(relevant[place]) for place in places)
    if num_relevant == 0:
        return float("nan")
    counts = {"min": min(num_relevant, k), "found": max(hits, 1), "relevant": num_relevant}
    return total / counts[divisor]


@pytest.mark.parametrize("divisor", ["min", "found", "relevant"])
@pytest.mark.parametrize("k", [1, 7, 50, 1000])
def test_ap_at_k_is_its_definition(divisor, k) -> None:
    rng = np.random.default_rng(k)
    # Few distinct scores: ties everywhere, across zero and with both signs of zero.
    scores = rng.choice(np.array([-0.5, -0.0, 0.0, 0.25, -np.inf], np.float32), size=(40, 120))
    relevant = rng.random((40, 120)) < rng.choice([0.0, 0.02, 0.5], size=(40, 1))
    ignored = (rng.random((40, 120)) < 0.2) & ~relevant
    got = average_precision_at(rank_hits(scores, relevant, ignored), k, divisor)
    expected = [slow_ap_at(*row, k, divisor) for row in zip(scores, relevant, ignored, strict=True)]
    np.testing.assert_allclose(got, expected)


def test_by_hand() -> None:
    #                 best ...                      worst
    scores = np.array([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]])
    relevant = np.array([[True, False, True, False, False, True]])
    hits = rank_hits(scores, relevant, None)
    # Precisions at the hits: 1/1, 2/3, 3/6.
    assert average_precision(hits)[0] == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert average_precision_at(hits, 4, "min")[0] == pytest.approx((1 + 2 / 3) / 3)
    assert average_precision_at(hits, 2, "min")[0] == pytest.approx(1 / 2)
    assert average_precision_at(hits, 4, "found")[0] == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision_at(hits, 4, "relevant")[0] == pytest.approx((1 + 2 / 3) / 3)
    assert recall_at(hits, 4)[0] == pytest.approx(2 / 3)


def test_ties_rank_irrelevant_images_first() -> None:
    relevant = np.array([[True, False, True, False]])
    hits = rank_hits(np.zeros((1, 4)), relevant, None)
    assert hits.tolist() == [[False, False, True, True]]


def test_ignored_images_change_nothing() -> None:
    scores, relevant = rankings(3)
    ignored = np.zeros_like(relevant)
    ignored[:, ::3] = True
    relevant &= ~ignored
    kept = ~ignored[0]
    with_ignored = rank_hits(scores, relevant, ignored)
    without = rank_hits(scores[:, kept], relevant[:, kept], None)
    np.testing.assert_allclose(average_precision(with_ignored), average_precision(without))
    np.testing.assert_allclose(
        average_precision_at(with_ignored, 20), average_precision_at(without, 20)
    )


def test_none_relevant_is_unknown_and_none_found_is_zero() -> None:
    hits = np.array([[False, False, False], [False, False, True]])
    for divisor in ("min", "found", "relevant"):
        got = average_precision_at(hits, 2, divisor)
        assert np.isnan(got[0])
        assert got[1] == 0


def test_empty() -> None:
    hits = rank_hits(np.zeros((0, 5)), np.zeros((0, 5), bool), None)
    assert average_precision(hits).shape == (0,)
    no_images = rank_hits(np.zeros((2, 0)), np.zeros((2, 0), bool), None)
    assert np.isnan(average_precision_at(no_images, 50)).all()


def test_order_gives_the_hits() -> None:
    scores, relevant = rankings(5)
    scores = scores.round(1)
    order = ranking_order(scores, relevant, None)
    np.testing.assert_array_equal(
        np.take_along_axis(relevant, order, axis=1), rank_hits(scores, relevant, None)
    )


@pytest.mark.parametrize(
    ("scores", "ignored", "message"),
    [
        (np.array([[np.nan, 0.0]]), None, "NaN"),
        (np.zeros((1, 3)), None, "same shape"),
        (np.zeros((1, 2)), np.array([[True, False]]), "both relevant"),
    ],
)
def test_bad_input(scores, ignored, message) -> None:
    with pytest.raises(InputError, match=message):
        rank_hits(scores, np.array([[True, False]]), ignored)

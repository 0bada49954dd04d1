"""What holds for any hits, need and limits."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from hardmine.mining.weights import WeightRules, image_weights, importance_weights, report_weights
from hardmine.records import Hits

share = st.floats(0, 1)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Hits, np.ndarray, np.ndarray, int]:
    """Hits of up to 5 queries in up to 12 images, need, trust and the number of images."""
    num_images = draw(st.integers(1, 12))
    num_queries = draw(st.integers(0, 5))
    depth = draw(st.integers(0, num_images))
    rows = np.full((num_queries, depth), -1, np.int64)
    for query in range(num_queries):
        found = draw(st.permutations(range(num_images)))[: draw(st.integers(0, depth))]
        rows[query, : len(found)] = found
    size = rows.size
    scores = np.array(draw(st.lists(share, min_size=size, max_size=size)), np.float32)
    scores = np.where(rows >= 0, scores.reshape(rows.shape), -np.inf).astype(np.float32)
    need, trust = (
        np.array(draw(st.lists(share, min_size=num_queries, max_size=num_queries)), float)
        for _ in range(2)
    )
    boxes = np.zeros((*rows.shape, 4), np.float32)
    return Hits(rows, scores, boxes), need, trust, num_images


caps = st.floats(1, 10)


@given(rounds(), caps)
def test_weights_lie_between_one_and_the_cap(
    drawn: tuple[Hits, np.ndarray, np.ndarray, int],
    cap: float,
) -> None:
    hits, need, trust, num_images = drawn
    weights = image_weights(
        hits,
        need,
        num_images=num_images,
        trust=trust,
        rules=WeightRules(cap=cap),
    )
    assert weights.shape == (num_images,)
    assert (weights >= 1).all()
    assert (weights <= cap).all()


@given(rounds(), st.data())
def test_raising_one_need_never_lowers_a_weight(
    drawn: tuple[Hits, np.ndarray, np.ndarray, int], data: st.DataObject
) -> None:
    hits, need, trust, num_images = drawn
    if not len(need):
        return
    query = data.draw(st.integers(0, len(need) - 1))
    more = need.copy()
    more[query] = data.draw(st.floats(need[query], 1))
    before = image_weights(hits, need, num_images=num_images, trust=trust)
    assert (image_weights(hits, more, num_images=num_images, trust=trust) >= before).all()


@given(rounds(), st.data())
def test_the_order_of_queries_and_images_changes_nothing_else(
    drawn: tuple[Hits, np.ndarray, np.ndarray, int], data: st.DataObject
) -> None:
    hits, need, trust, num_images = drawn
    queries = np.array(data.draw(st.permutations(range(len(need)))), int)
    images = np.array(data.draw(st.permutations(range(num_images))), int)  # old row -> new row
    moved = np.where(hits.found, images[hits.image_rows], -1)
    shuffled = Hits(moved[queries], hits.scores[queries], hits.boxes[queries])
    before = image_weights(hits, need, num_images=num_images, trust=trust)
    after = image_weights(shuffled, need[queries], num_images=num_images, trust=trust[queries])
    np.testing.assert_array_equal(after[images], before)


@given(rounds(), caps)
def test_no_need_is_all_equal(
    drawn: tuple[Hits, np.ndarray, np.ndarray, int],
    cap: float,
) -> None:
    hits, need, trust, num_images = drawn
    weights = image_weights(
        hits,
        np.zeros_like(need),
        num_images=num_images,
        trust=trust,
        rules=WeightRules(cap=cap),
    )
    assert set(weights.tolist()) == {1.0}


@given(st.lists(st.floats(0.01, 100), min_size=1, max_size=30))
def test_importance_times_probability_is_uniform(weights: list[float]) -> None:
    probability = np.array(weights) / np.sum(weights)
    np.testing.assert_allclose(importance_weights(weights) * probability, 1 / len(weights))


@given(
    st.lists(st.floats(0.01, 100), min_size=1, max_size=30),
    st.floats(0.01, 100),
)
def test_a_report_sees_ratios_alone(weights: list[float], factor: float) -> None:
    first, second = report_weights(weights), report_weights(np.array(weights) * factor)
    np.testing.assert_allclose(second.effective_size, first.effective_size)
    np.testing.assert_allclose(second.moved_share, first.moved_share, atol=1e-12)
    assert 1 - 1e-9 <= first.effective_size <= len(weights) + 1e-9

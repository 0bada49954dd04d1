"""Do failures go with a value? Against textbook tests, and where nothing is to be found."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats

from hardmine.detections import FailureTest, Outcomes, benjamini_hochberg


def outcomes_of(
    image_rows: np.ndarray, class_rows: np.ndarray, sides: np.ndarray, failed: np.ndarray
) -> Outcomes:
    corners = np.zeros((len(failed), 2))
    boxes = np.concatenate([corners, corners + sides[:, None]], axis=1)
    return Outcomes(image_rows.astype(np.int64), class_rows.astype(np.int64), boxes, failed)


def test_one_object_an_image_gives_the_test_of_cochran_mantel_and_haenszel() -> None:
    rng = np.random.default_rng(0)
    count = 4000
    classes = rng.integers(0, 3, count)
    dark = rng.random(count) < 0.3
    failed = rng.random(count) < 0.2 + 0.2 * classes + 0.03 * dark
    ours = FailureTest(
        outcomes_of(np.arange(count), classes, np.full(count, 40.0), failed),
        dark[:, None].astype(np.float32),
    )
    excess, variance = 0.0, 0.0
    for row in range(3):
        own = classes == row
        table = [[(failed & dark & own).sum(), (failed & ~dark & own).sum()]]
        table.append([(~failed & dark & own).sum(), (~failed & ~dark & own).sum()])
        # Mean and variance of the first cell with all margins fixed.
        margins = scipy.stats.hypergeom(own.sum(), (failed & own).sum(), (dark & own).sum())
        excess += table[0][0] - margins.mean()
        variance += margins.var()
    assert ours.association().z[0] == pytest.approx(excess / np.sqrt(variance), rel=0.03)
    np.testing.assert_allclose(
        [ours.expected[classes == row][0] for row in range(3)],
        [failed[classes == row].mean() for row in range(3)],
    )


def test_class_and_size_explain_what_they_can() -> None:
    rng = np.random.default_rng(1)
    count = 6000
    classes, sides = rng.integers(0, 2, count), 2.0 ** rng.uniform(3, 8, count)
    hard = 1 / (1 + np.exp(sides / 40 - 1 + classes))
    failed = rng.random(count) < hard
    crowded = (hard + rng.normal(0, 0.1, count))[:, None].astype(np.float32)
    images = np.arange(count) // 6
    ours = FailureTest(outcomes_of(images, classes, sides, failed), crowded).association()
    alike = FailureTest(
        outcomes_of(images, 0 * classes, 0 * sides + 40, failed), crowded
    ).association()
    assert alike.z[0] > 20
    assert abs(ours.z[0]) < 4


def test_objects_of_one_image_are_not_independent() -> None:
    """Failures and values that images share, but that have nothing to do with each other."""
    rng = np.random.default_rng(2)
    images = np.repeat(np.arange(80), 25)
    together, apart = [], []
    for _ in range(150):
        failed = rng.random(2000) < rng.beta(1, 1, 80)[images]
        values = rng.normal(size=(80, 1))[images].astype(np.float32)
        group = outcomes_of(images, 0 * images, np.full(2000, 40.0), failed)
        alone = outcomes_of(np.arange(2000), 0 * images, np.full(2000, 40.0), failed)
        together.append(FailureTest(group, values).association().p[0])
        apart.append(FailureTest(alone, values).association().p[0])
    assert np.mean(np.array(together) < 0.05) < 0.1
    assert np.mean(np.array(apart) < 0.05) > 0.2


def test_what_another_value_explains_is_not_found_again() -> None:
    rng = np.random.default_rng(3)
    images = np.repeat(np.arange(400), 5)
    dark, wet = rng.normal(size=(2, 400))[:, images]
    failed = rng.random(2000) < 1 / (1 + np.exp(-dark - 0.6 * wet))
    values = np.stack([dark, dark + 0.3 * rng.normal(size=400)[images], wet], 1).astype(np.float32)
    test = FailureTest(outcomes_of(images, 0 * images, np.full(2000, 40.0), failed), values)
    assert (test.association().p < 1e-6).all()
    beyond = test.association([1, 2], given=[0])
    assert beyond.p[0] > 0.01
    assert beyond.p[1] < 1e-6


def test_nothing_to_test() -> None:
    none = np.zeros(0, np.int64)
    empty = outcomes_of(none, none, np.zeros(0), np.zeros(0, bool))
    assert FailureTest(empty, np.zeros((0, 2), np.float32)).association().z.tolist() == [0, 0]
    # An image alone, or a value that never changes, cannot tell anything.
    one = outcomes_of(np.zeros(9), np.zeros(9), np.full(9, 40.0), np.arange(9) < 4)
    values = np.stack([np.arange(9), np.ones(9)], axis=1).astype(np.float32)
    assert (FailureTest(one, values).association().p >= 0.2).all()


def test_the_rate_of_false_discoveries() -> None:
    """Against the adjusted p-values of scipy."""
    p = np.random.default_rng(4).random(50) ** 3
    adjusted = scipy.stats.false_discovery_control(p, method="bh")
    np.testing.assert_array_equal(p <= benjamini_hochberg(p, 0.05), adjusted <= 0.05)
    assert benjamini_hochberg(np.ones(4), 0.05) == -1
    assert benjamini_hochberg(np.zeros(0), 0.05) == -1

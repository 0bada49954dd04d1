from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse

from hardmine.draws import epoch_stream
from hardmine.errors import InputError
from hardmine.mining.need import class_need
from hardmine.mining.weights import (
    WeightRules,
    image_weights,
    importance_weights,
    report_weights,
)
from hardmine.records import Hits
from hardmine.sampler import HardMiningSampler


def hits(rows: list[list[int]], scores: list[list[float]]) -> Hits:
    shape = (len(rows), len(rows[0]) if rows else 0)
    return Hits(
        np.array(rows, np.int64).reshape(shape),
        np.array(scores, np.float32).reshape(shape),
        np.zeros((*shape, 4), np.float32),
    )


TWO = hits([[0, 1], [1, -1]], [[1.0, 0.5], [0.8, -np.inf]])


@pytest.mark.parametrize(
    ("found", "need", "options", "rules", "expected"),
    [
        # No query, no image raised.
        (hits([], []), [], {}, {}, [1, 1, 1]),
        # A full answer to the weakest class gets the cap; half of it the root of that.
        (hits([[0, 1]], [[1.0, 0.5]]), [1.0], {}, {"cap": 4}, [4, 2, 1]),
        # The best of an image's queries counts, not their sum: 0.5 * 1 against 0.8 * 0.5.
        (TWO, [1.0, 0.5], {}, {"cap": 4}, [4, 2, 1]),
        (TWO, [0.25, 1.0], {}, {"cap": 16}, [2, 16**0.8, 1]),
        # A class and its context add up: 1 - (1 - 0.5) (1 - 0.4) = 0.7.
        (TWO, [1.0, 0.5], {"class_rows": np.array([0, 0])}, {"cap": 16}, [16, 16**0.7, 1]),
        # Trust scales, and mutes.
        (TWO, [1.0, 1.0], {"trust": [0.5, 0.0]}, {"cap": 16}, [4, 2, 1]),
        # Scores beyond [0, 1] are cut.
        (hits([[0, 1]], [[1.7, -0.3]]), [1.0], {}, {}, [1.75, 1, 1]),
        # Balance multiplies.
        (TWO, [1.0, 0.5], {"balance": np.array([0.5, 1, 3])}, {"cap": 4}, [2, 2, 3]),
        # A cap of 1 turns boosts off.
        (TWO, [1.0, 1.0], {}, {"cap": 1}, [1, 1, 1]),
        # No need: all equal.
        (TWO, [0.0, 0.0], {}, {}, [1, 1, 1]),
    ],
)
def test_weights(
    found: Hits,
    need: list[float],
    options: dict[str, object],
    rules: dict[str, float],
    expected: list[float],
) -> None:
    limits = WeightRules(**rules)
    weights = image_weights(found, need, num_images=3, rules=limits, **options)  # type: ignore[arg-type]
    np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_the_loops_defaults_are_those_of_the_function() -> None:
    found = hits([[0, 1]], [[1.0, 0.5]])
    assert image_weights(found, [1.0], num_images=9).max() == WeightRules().cap == 1.75


def test_need_goes_in_as_it_comes_out_of_class_need() -> None:
    need = class_need({"a": 0.6, "b": 0.15})
    np.testing.assert_allclose(
        image_weights(TWO, need, num_images=3),
        image_weights(TWO, need.need, num_images=3),
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"need": [1.0]}, r"need must have one value a query \(expected 2, got 1\)"),
        (
            {"need": [1.0, np.nan]},
            r"need must be one value in \[0, 1\] a query, got nan and 0 more",
        ),
        ({"need": [1.5, -1.0]}, r"need must be one value in \[0, 1\] a query, got 1.5 and 1 more"),
        ({"need": [[1.0, 1.0]]}, r"need must be one value .* got shape \(1, 2\)"),
        ({"trust": [1.0, 2.0]}, r"trust must be one value in \[0, 1\]"),
        ({"trust": [1.0]}, r"trust must have one value a query \(expected 2, got 1\)"),
        ({"num_images": 1}, "a hit names image row 1 of 1 images; was the index built on another"),
    ],
)
def test_bad_input_is_refused(options: dict[str, object], message: str) -> None:
    arguments = {"need": [1.0, 1.0], "num_images": 3, **options}
    with pytest.raises(InputError, match=message):
        image_weights(TWO, arguments.pop("need"), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"cap": 0.5}, "cap must be at least 1 .* got 0.5"),
        ({"cap": np.inf}, "cap must be at least 1"),
        ({"cap": "4"}, "cap must be at least 1 .* got '4'"),
        ({"balance": 2}, r"balance must be in \[0, 1\], got 2"),
    ],
)
def test_bad_rules_are_refused(rules: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightRules(**rules)  # type: ignore[arg-type]


def test_report_of_equal_weights() -> None:
    report = report_weights(np.full(50, 2.0), np.ones((50, 2)))
    assert report.effective_size == pytest.approx(50)
    assert (report.num_images, report.num_raised, report.mean) == (50, 0, 2.0)
    assert set(report.quantiles) == {2.0}
    assert report.moved_share == 0
    assert report.class_draws is not None
    assert report.class_draws.tolist() == [1, 1]
    assert report.head_share_before == report.head_share_after == 0.5


@pytest.mark.parametrize("make", [np.asarray, scipy.sparse.csr_matrix])
def test_report_says_what_the_head_loses(make: object) -> None:
    # Class 0 is the head: 90 of 100 instances. The one image of class 1 is drawn thrice as often.
    counts = np.zeros((10, 3), np.int32)
    counts[:9, 0] = 10
    counts[9, 1] = 10
    weights = np.ones(10)
    weights[9] = 3.0
    report = report_weights(weights, make(counts))  # type: ignore[operator]
    assert report.head_share_before == pytest.approx(0.9)
    assert report.head_share_after == pytest.approx(0.75)  # 9 : 3
    assert report.class_draws is not None
    np.testing.assert_allclose(report.class_draws, [10 / 12, 30 / 12, np.nan])
    assert report.num_raised == 1
    assert report.effective_size == pytest.approx(12**2 / (9 + 9))
    assert report.moved_share == pytest.approx(3 / 12 - 1 / 10)


def test_effective_size_is_what_the_variance_says() -> None:
    # Kish: a weighted mean of N independent values is as sure as a plain one of n_eff.
    rng = np.random.default_rng(1)
    weights = rng.uniform(1, 4, 200)
    means = [np.average(rng.standard_normal(200), weights=weights) for _ in range(20_000)]
    assert 1 / np.var(means) == pytest.approx(report_weights(weights).effective_size, rel=0.05)


def test_importance_weights_undo_the_bias_of_the_draws() -> None:
    rng = np.random.default_rng(2)
    weights = rng.uniform(1, 4, 500)
    loss = weights + rng.random(500)  # often drawn images have a large loss: the worst case
    sampler = HardMiningSampler(500)
    sampler.set_weights(weights)
    factors = importance_weights(sampler.weights)
    assert factors.mean() > 1
    plain, corrected = [], []
    for _ in range(400):
        drawn = np.array(list(sampler))
        plain.append(loss[drawn].mean())
        corrected.append((factors * loss)[drawn].mean())
    assert np.mean(plain) > loss.mean() * 1.05
    assert np.mean(corrected) == pytest.approx(loss.mean(), rel=1e-3)


def test_importance_of_an_image_that_is_never_drawn_is_zero() -> None:
    assert importance_weights([0.0, 2.0, 2.0]).tolist() == [0.0, 2 / 3, 2 / 3]


def test_importance_of_weights_of_any_size_is_finite() -> None:
    assert importance_weights([1e308, 1e308, 1e308]).tolist() == [1.0, 1.0, 1.0]
    tiny = importance_weights([1e-320, 1.0])
    assert np.isfinite(tiny).all()
    assert tiny[0] > 1e307
    assert importance_weights([]).tolist() == []
    for bad in ([0.0, 0.0], [1.0, -1.0], [1.0, np.inf]):
        with pytest.raises(InputError, match="finite, none negative and not all zero"):
            importance_weights(bad)


def test_expected_counts_are_what_the_factors_assume() -> None:
    # The mean count over phases is exact: factor x expected count = epoch length / N.
    import torch

    weights = np.array([1.0, 2.0, 5.0, 3.5])
    counts = np.mean(
        [
            np.bincount(
                epoch_stream(torch.from_numpy(weights), 4, 10, seed=0, epoch=e).numpy(), minlength=4
            )
            for e in range(2000)
        ],
        axis=0,
    )
    np.testing.assert_allclose(counts * importance_weights(weights), 10 / 4, rtol=2e-3)

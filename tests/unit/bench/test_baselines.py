"""The label-only baselines equal a slow computation of the published formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.sparse
import torch

from hardmine.bench.baselines import inverse_ap, repeat_factors
from hardmine.draws import draw_counts
from hardmine.mining.balance import class_aware

COUNTS = scipy.sparse.csr_matrix(
    np.array([[2, 0, 0], [1, 1, 0], [1, 0, 0], [0, 1, 0], [3, 0, 1], [1, 0, 0], [0, 0, 0]])
)
KNOWN = slice(0, 6)


def test_repeat_factors_by_hand() -> None:
    weights = repeat_factors(COUNTS, threshold=0.5)
    images = COUNTS.toarray() > 0
    for image, weight in zip(images, weights, strict=True):
        factors = [
            max(1.0, math.sqrt(0.5 / images[:, row].mean())) for row in np.flatnonzero(image)
        ]
        assert weight == pytest.approx(max(factors, default=1.0))
    assert weights[4] == weights.max()


def test_class_aware_draws_all_classes_equally_often() -> None:
    rng = np.random.default_rng(0)
    counts = scipy.sparse.csr_matrix(
        np.eye(5, dtype=np.int64)[rng.choice(5, 400, p=[0.6, 0.2, 0.1, 0.06, 0.04])]
    )
    draws = draw_counts(torch.from_numpy(class_aware(counts)), 10_000).numpy()
    np.testing.assert_allclose(counts.T @ draws, 2000, rtol=0.01)


def test_inverse_ap_by_hand() -> None:
    ap = np.array([0.9, 0.1, np.nan])
    instances = COUNTS.toarray().sum(axis=0)
    weights = inverse_ap(COUNTS, ap)
    for image, weight in zip(COUNTS.toarray()[KNOWN], weights[KNOWN], strict=True):
        terms = [
            count * (1 - class_ap) ** 2 / total
            for count, class_ap, total in zip(image, [0.9, 0.1, 0.0], instances, strict=True)
        ]
        assert weight == pytest.approx(sum(terms))


@pytest.mark.parametrize("baseline", [class_aware, lambda counts: inverse_ap(counts, np.zeros(3))])
def test_an_image_without_known_labels_has_the_mean_weight(baseline) -> None:
    weights = baseline(COUNTS)
    assert weights[6] == pytest.approx(weights[KNOWN].mean())

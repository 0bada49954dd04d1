"""The ratio of missed validation objects to training objects, as a direction of the embedding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import scipy.optimize
import scipy.special
from sklearn.metrics import precision_recall_curve

from hardmine.detections import Detections, match_detections
from hardmine.mining.density_ratio import (
    MAX_RATIO,
    DensityRatio,
    count_objects,
    fit_density_ratio,
    sample_rows,
)
from hardmine.records import ImageSet, Instances

DIM = 32
Floats = npt.NDArray[np.float64]


def vectors(count: int, dark: float, *, seed: int) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Unit vectors of which a share lies in another direction, and which."""
    generator = np.random.default_rng(seed)
    is_dark = generator.random(count) < dark
    found = generator.normal(size=(count, DIM)) * 0.5
    found[:, 0] += 3
    found[is_dark, 1] += 2
    return found / np.linalg.norm(found, axis=1, keepdims=True), is_dark


def test_draws_come_to_look_like_what_is_missed_and_change_no_more_than_that(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Against another solver of the other form of the problem, over the draws themselves."""
    monkeypatch.setattr("hardmine.mining.density_ratio._PRIOR_DEVIATION", 0.5)
    inside, _ = vectors(60, 0.5, seed=0)
    outside, _ = vectors(90, 0.1, seed=1)
    generator = np.random.default_rng(2)
    missed, shown = generator.integers(0, 5, 60), generator.integers(1, 9, 90)
    ratio = fit_density_ratio(missed, inside, shown, outside)
    assert ratio is not None
    before, wanted = shown / shown.sum(), missed / missed.sum()
    spread = np.sqrt(before @ ((outside - before @ outside) ** 2).sum(axis=1))
    strictness = 0.5**2 / (wanted**2).sum()

    def change_and_distance(logs: Floats) -> float:
        draws = scipy.special.softmax(logs)
        apart = (draws @ outside - wanted @ inside) / spread
        return float(scipy.special.rel_entr(draws, before).sum() + strictness / 2 * apart @ apart)

    found = scipy.optimize.minimize(change_and_distance, np.log(before), method="BFGS", tol=1e-9).x
    draws = before * ratio.of(outside)
    assert draws.sum() == pytest.approx(1)
    np.testing.assert_allclose(draws, scipy.special.softmax(found), rtol=0.01, atol=1e-6)


def test_many_images_bring_the_average_all_the_way() -> None:
    inside, _ = vectors(4000, 0.4, seed=0)
    outside, _ = vectors(4000, 0.1, seed=1)
    ratio = fit_density_ratio(np.ones(4000), inside, np.ones(4000), outside)
    assert ratio is not None
    before, after = (
        np.linalg.norm(np.average(outside, axis=0, weights=weights) - inside.mean(axis=0))
        for weights in (np.ones(4000), ratio.of(outside))
    )
    assert after < 0.1 * before


def test_what_is_missed_and_rarely_shown_is_found() -> None:
    inside, dark_inside = vectors(800, 0.4, seed=0)
    outside, dark_outside = vectors(2400, 0.04, seed=1)
    ratio = fit_density_ratio(np.ones(800), inside, np.ones(2400), outside)
    assert ratio is not None
    values = ratio.of(outside)
    assert values[dark_outside].mean() > 4 * values[~dark_outside].mean()
    # The more of it is missed, the more it counts.
    harder = fit_density_ratio(1 + 4.0 * dark_inside, inside, np.ones(2400), outside)
    assert harder is not None
    assert harder.of(outside)[dark_outside].mean() > 1.3 * values[dark_outside].mean()
    assert values.min() >= 1 / MAX_RATIO
    assert values.max() <= MAX_RATIO


@pytest.mark.parametrize("num_val", [5, 50, 800])
def test_where_validation_is_like_training_draws_hardly_change(num_val: int) -> None:
    inside, _ = vectors(num_val, 0.2, seed=3)
    outside, _ = vectors(2400, 0.2, seed=4)
    ratio = fit_density_ratio(np.ones(num_val), inside, np.ones(2400), outside)
    assert ratio is not None
    weights = np.sqrt(ratio.of(outside))
    moved = (weights / weights.sum() - 1 / len(weights)).clip(0).sum()
    assert moved < 0.08


def test_only_a_part_of_a_large_training_set_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardmine.mining.density_ratio._NUM_TRAIN", 1000)
    inside, _ = vectors(300, 0.5, seed=5)
    outside, dark = vectors(5000, 0.05, seed=6)
    rows = sample_rows(5000)
    assert (len(rows), rows[0], rows[-1]) == (1000, 0, 4999)
    assert sample_rows(3).tolist() == [0, 1, 2]
    ratio = fit_density_ratio(np.ones(300), inside, np.ones(1000), outside[rows])
    assert ratio is not None
    values = ratio.of(outside)
    assert len(values) == 5000
    assert values[dark].mean() > 3 * values[~dark].mean()


def test_without_misses_or_objects_there_is_no_ratio() -> None:
    some, _ = vectors(20, 0.5, seed=0)
    none, ones, zeros = np.zeros(20), np.ones(20), np.zeros((20, DIM))
    assert fit_density_ratio(none, some, ones, some) is None
    assert fit_density_ratio(ones, some, none, some) is None
    assert fit_density_ratio(ones, zeros, ones, some) is None
    assert fit_density_ratio(ones, some, ones, np.repeat(some[:1], 20, axis=0)) is None


def test_an_image_without_regions_keeps_its_draws() -> None:
    ratio = DensityRatio((9.0, 0.0), 2.0)
    values = ratio.of(np.array([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0], [-0.2, 0.5]]))
    assert values == pytest.approx([MAX_RATIO, 1.0, 1 / MAX_RATIO, np.exp(0.2)])


def images_of(class_rows: list[int], image_rows: list[int], crowd: list[bool]) -> ImageSet:
    count, num_images = len(class_rows), 6
    return ImageSet(
        root=Path(),
        ids=np.arange(num_images),
        paths=tuple(f"{row}.jpg" for row in range(num_images)),
        sizes=np.full((num_images, 2), 100, np.int32),
        class_names=("car", "bus"),
        class_ids=np.arange(2),
        instances=Instances(
            np.array(image_rows, np.int32),
            np.array(class_rows, np.int32),
            np.tile(np.float32([10, 10, 50, 50]), (count, 1)),
            np.full(count, 1600, np.float32),
            np.array(crowd),
            np.arange(count),
        ),
    )


def test_an_object_is_missed_below_the_threshold_of_the_best_f1() -> None:
    # Five cars in images 0 to 4, a crowd of them and a bus in image 5.
    images = images_of([0, 0, 0, 0, 0, 0, 1], [0, 1, 2, 3, 4, 5, 5], [False] * 5 + [True, False])
    hit, off = [10, 10, 50, 50], [60, 60, 90, 90]
    scores = np.array([0.9, 0.8, 0.6, 0.5, 0.4, 0.3, 0.25, 0.2])
    boxes = [hit, hit, off, hit, off, off, off, hit]
    rows = [0, 1, 1, 2, 2, 3, 3, 3]
    found = Detections(np.array(rows), np.zeros(8, np.int64), np.array(boxes, float), scores)
    correct = np.array([box is hit for box in boxes])
    # Recall is over five cars, two of which nothing found.
    precision, recall, thresholds = precision_recall_curve(correct, scores)
    recall = recall * correct.sum() / 5
    best = thresholds[(2 * precision * recall / (precision + recall).clip(1e-9))[:-1].argmax()]
    assert best == 0.5
    matches = match_detections(images, found)
    missed, labelled = count_objects(images, matches, ("car", "bus"))
    assert missed.toarray().T.tolist() == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
    assert labelled.toarray().T.tolist() == [[1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, 1]]
    # Classes that are not asked for, and crowds, are never missed.
    missed, labelled = count_objects(images, matches, ("tram", "car"))
    assert missed.toarray().T.tolist() == [[0] * 6, [0, 0, 0, 1, 1, 0]]
    assert labelled.sum() == 5
    matches = match_detections(images, found.take(np.zeros(0, np.int64)))
    missed, _ = count_objects(images, matches, ("car", "bus"))
    assert missed.sum(axis=1).ravel().tolist() == [[1] * 6]

"""Missed objects and false detections at the best threshold, against every threshold tried."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import f1_score

from hardmine.detections import Detections, Matches, find_outcomes, match_detections
from hardmine.detections.outcomes import best_threshold, best_thresholds, confident_detections
from hardmine.records import ImageSet, Instances

NUM = 12
ON, OFF = np.array([10.0, 10.0, 30.0, 30.0]), np.array([60.0, 60.0, 80.0, 80.0])


def image_set(ids: np.ndarray, num_classes: int = 1) -> ImageSet:
    """An object of each class in every image, all in one place."""
    count = len(ids) * num_classes
    return ImageSet(
        root=Path(),
        ids=ids,
        paths=tuple(map(str, ids)),
        sizes=np.full((len(ids), 2), 100, np.int32),
        class_names=tuple("abc"[:num_classes]),
        class_ids=np.arange(num_classes),
        instances=Instances(
            np.repeat(np.arange(len(ids), dtype=np.int32), num_classes),
            np.tile(np.arange(num_classes, dtype=np.int32), len(ids)),
            np.tile(ON, (count, 1)).astype(np.float32),
            np.full(count, 400, np.float32),
            np.zeros(count, bool),
            np.arange(count),
        ),
    )


def random_matches(seed: int) -> Matches:
    """Two classes, scores of one decimal; more is wrong than right, and the third is never seen."""
    rng = np.random.default_rng(seed)
    right = rng.random(4 * NUM) < 0.4
    # No object is found twice.
    rows = np.where(right, np.arange(4 * NUM) % NUM, rng.integers(0, NUM, 4 * NUM))
    right[2 * NUM :] &= ~right[: 2 * NUM]
    classes = np.arange(4 * NUM) // NUM % 2
    boxes = np.where(right[:, None], ON, OFF)
    scores = rng.beta(3 + right, 3).round(1)
    detections = Detections(rows.astype(np.int64), classes.astype(np.int64), boxes, scores)
    return match_detections(image_set(np.arange(NUM), 3), detections, iou_thresholds=[0.5])


@pytest.mark.parametrize("seed", range(8))
def test_no_threshold_has_a_better_f1_where_scores_tie(seed: int) -> None:
    matches = random_matches(seed)
    confident = confident_detections(matches)
    for row in range(2):
        own = matches.detections.class_rows == row
        scores, right = matches.detections.scores[own], matches.correct[own, 0]
        missed = np.ones(NUM - int(right.sum()), bool)  # objects that no detection finds

        def f1(kept: np.ndarray, right: np.ndarray = right, missed: np.ndarray = missed) -> float:
            return float(f1_score(np.append(right, missed), np.append(kept, ~missed)))

        best = max(f1(scores >= score) for score in np.unique(scores))
        assert f1(confident[own]) == pytest.approx(best, abs=1e-12)
    assert best_thresholds(matches)[2] == np.inf


def test_outcomes_do_not_depend_on_image_ids_where_scores_tie() -> None:
    """Three objects are found for sure; one more has the score of 30 false detections."""
    rows = np.concatenate([[0, 1, 2, 3], np.repeat(np.arange(6), 5)])
    boxes = np.where(np.arange(len(rows))[:, None] < 4, ON, OFF)
    scores = np.where(np.arange(len(rows)) < 3, 0.9, 0.5)
    detections = Detections(rows, np.zeros(len(rows), np.int64), boxes, scores)
    for ids in (np.arange(6), np.arange(6)[::-1]):
        images = image_set(ids)
        objects, confident = find_outcomes(images, match_detections(images, detections))
        assert (objects.failed.sum(), len(confident), confident.failed.sum()) == (3, 3, 0)


@pytest.mark.parametrize(
    ("scores", "right", "expected"),
    [
        pytest.param([], [], np.inf, id="no detection"),
        pytest.param([0.9], [False], np.inf, id="none right"),
        pytest.param([0.9, *[0.5] * 4], [True, True, *[False] * 3], 0.9, id="the end of a tie"),
        pytest.param([0.5, 0.5, 0.5], [True, False, False], 0.5, id="one score alone"),
        pytest.param([0.3, 0.7], [True, True], 0.3, id="in any order"),
    ],
)
def test_the_threshold_of_scores_by_hand(
    scores: list[float], right: list[bool], expected: float
) -> None:
    assert best_threshold(np.array(scores), np.array(right, bool), num_objects=2) == expected

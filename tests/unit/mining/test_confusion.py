"""Which classes are confused, on boxes small enough to check by eye."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.mining.confusion import Confusion, measure_confusion
from hardmine.records import ImageSet, Instances

NAMES = ("chair", "couch", "cat")
LEFT, RIGHT = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]


def make(objects: list[tuple[int, int, list[float]]]) -> ImageSet:
    """Two images; (row, class, box) each."""
    count = len(objects)
    return ImageSet(
        root=Path(),
        ids=np.array([7, 8]),
        paths=("a", "b"),
        sizes=np.full((2, 2), 100, np.int32),
        class_names=NAMES,
        class_ids=np.array([1, 2, 3]),
        instances=Instances(
            np.array([row for row, _, _ in objects], np.int32),
            np.array([column for _, column, _ in objects], np.int32),
            np.array([box for *_, box in objects], np.float32).reshape(-1, 4),
            np.full(count, 100, np.float32),
            np.zeros(count, bool),
            np.arange(count),
        ),
    )


def found(image_id: int, category_id: int, box: list[float], score: float) -> dict[str, Any]:
    left, top, right, bottom = box
    return {
        "image_id": image_id,
        "category_id": category_id,
        "bbox": [left, top, right - left, bottom - top],
        "score": score,
    }


IMAGES = make([(0, 0, LEFT), (0, 1, RIGHT), (1, 2, LEFT)])


def test_wrong_detections_count_for_what_they_lie_on() -> None:
    results = [
        found(7, 2, LEFT, 0.6),  # a couch seen on the chair
        found(7, 2, RIGHT, 0.9),  # a couch seen on the couch: right
        found(8, 2, [70.0, 70.0, 80.0, 80.0], 0.2),  # a couch seen on nothing
        found(7, 1, LEFT, 0.9),  # right
        found(8, 1, LEFT, 0.1),  # too low a score to count
    ]
    ((row, other, share),) = measure_confusion(IMAGES, results, NAMES).detected_on
    assert (row, other) == (1, 0)
    assert share == pytest.approx(0.6 / 0.8)


def test_the_detection_of_the_highest_score_names_an_object() -> None:
    results = [
        found(7, 2, LEFT, 0.3),  # a couch on the chair, with a higher score than the chair itself
        found(7, 1, LEFT, 0.2),
        found(7, 1, RIGHT, 0.4),  # a chair on the couch, with a lower score than the couch
        found(7, 2, RIGHT, 0.5),
        found(8, 1, LEFT, 0.04),  # a chair on the cat, too low a score to name it
    ]
    ((row, other, share),) = measure_confusion(IMAGES, results, NAMES, prior=0).mistaken_for
    assert (row, other, share) == (0, 1, 1.0)
    assert measure_confusion(IMAGES, results, NAMES, prior=3).mistaken_for == ((0, 1, 0.25),)


def test_what_all_classes_are_mistaken_for_is_subtracted() -> None:
    boxes = [[50.0 * place, 0.0, 50.0 * place + 10, 10.0] for place in range(4)]
    many = make([(0, column, box) for column, box in zip([0, 1, 1, 2], boxes, strict=True)])

    def mistaken(*names: int) -> dict[tuple[int, int], float]:
        results = [found(7, name, box, 0.9) for name, box in zip(names, boxes, strict=False)]
        pairs = measure_confusion(many, results, NAMES, prior=0).mistaken_for
        return {(row, other): share for row, other, share in pairs}

    # All couches and cats are chairs to it, then half the couches are.
    assert mistaken(1, 1, 1, 1) == {}
    assert mistaken(1, 1, 2, 1) == {(2, 0): 0.5}
    # The chair itself does not count among what is mistaken for chairs, nor does a nameless object.
    assert mistaken(1, 1, 1, 3) == {(1, 0): 1.0}
    assert mistaken(1, 1, 1) == {(1, 0): 1.0}


def test_a_detection_names_the_object_that_it_lies_on_most() -> None:
    beside = [2.0, 0.0, 12.0, 10.0]  # overlaps LEFT by two thirds
    pair = make([(0, 0, LEFT), (0, 1, beside)])
    results = [found(7, 2, beside, 0.9)]
    assert measure_confusion(pair, results, NAMES, prior=0).mistaken_for == ()


def test_rows_are_those_of_the_names_given() -> None:
    results = [found(7, 2, LEFT, 0.6)]
    pairs = measure_confusion(IMAGES, results, ("couch", "chair"), prior=0)
    assert pairs == Confusion(detected_on=((0, 1, 1.0),), mistaken_for=((1, 0, 1.0),))
    assert measure_confusion(IMAGES, results, ("couch", "cat")) == Confusion()


def test_no_detections_no_labels_no_objects() -> None:
    assert measure_confusion(IMAGES, [], NAMES) == Confusion()
    assert measure_confusion(make([]), [found(7, 2, LEFT, 0.6)], NAMES) == Confusion()


def test_results_of_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="not in the image set"):
        measure_confusion(IMAGES, [found(99, 1, LEFT, 0.9)], NAMES)

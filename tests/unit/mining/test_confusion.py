"""Which classes are confused: by eye, and against loops over pycocotools' IoUs."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from pycocotools import mask

from hardmine.detections import Detections
from hardmine.errors import InputError
from hardmine.mining.confusion import measure_confusion
from hardmine.records import ImageSet, Instances

NAMES = ("chair", "couch", "cat")
LEFT, RIGHT = [0.0, 0.0, 10.0, 10.0], [50.0, 0.0, 60.0, 10.0]


def make(objects: list[tuple[int, int, list[float]]], crowd: list[bool] | None = None) -> ImageSet:
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
            np.array([False] * count if crowd is None else crowd, bool),
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


def test_the_detection_of_the_highest_score_names_an_object() -> None:
    results = [
        found(7, 2, LEFT, 0.3),  # a couch on the chair, with a higher score than the chair itself
        found(7, 1, LEFT, 0.2),
        found(7, 1, RIGHT, 0.4),  # a chair on the couch, with a lower score than the couch
        found(7, 2, RIGHT, 0.5),
        found(8, 1, LEFT, 0.04),  # a chair on the cat, too low a score to name it
    ]
    ((row, other, share),) = measure_confusion(IMAGES, results, NAMES, prior=0)
    assert (row, other, share) == (0, 1, 1.0)
    assert measure_confusion(IMAGES, results, NAMES, prior=3) == ((0, 1, 0.25),)


def test_what_all_classes_are_mistaken_for_is_subtracted() -> None:
    boxes = [[50.0 * place, 0.0, 50.0 * place + 10, 10.0] for place in range(4)]
    many = make([(0, column, box) for column, box in zip([0, 1, 1, 2], boxes, strict=True)])

    def mistaken(*names: int) -> dict[tuple[int, int], float]:
        results = [found(7, name, box, 0.9) for name, box in zip(names, boxes, strict=False)]
        pairs = measure_confusion(many, results, NAMES, prior=0)
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
    assert measure_confusion(pair, results, NAMES, prior=0) == ()


@pytest.mark.parametrize("crowd", [False, True])
def test_a_crowd_hides_no_object_that_it_covers(crowd: bool) -> None:
    """A chair as large as the image: as a crowd it would hold every detection wholly."""
    images = make([(0, 0, [0.0, 0.0, 100.0, 100.0]), (0, 1, RIGHT)], [crowd, False])
    near = [50.0, 0.0, 60.0, 9.0]
    on_couch = measure_confusion(images, [found(7, 3, near, 0.9)], NAMES, prior=0)
    assert on_couch == ((1, 2, 1.0),)


def test_a_crowd_excuses_detections_of_its_class() -> None:
    images = make(
        [(0, 1, [0.0, 0.0, 40.0, 40.0]), (0, 0, LEFT), (0, 2, RIGHT)], [True, False, False]
    )
    # A couch in the crowd of couches is no name of the chair that it covers.
    results = [found(7, 2, LEFT, 0.9), found(7, 2, RIGHT, 0.3)]
    assert measure_confusion(images, results, NAMES, prior=0) == ((2, 1, 1.0),)


def test_classes_that_an_image_was_not_checked_for_do_not_count() -> None:
    """Both images show a chair; image 8 was checked for couches, which it does not show."""
    verified = scipy.sparse.csr_matrix(np.array([[0, 0, 0], [0, 1, 0]], bool))
    images = replace(make([(0, 0, LEFT), (1, 0, LEFT)]), negatives=verified)
    results = [
        found(7, 2, LEFT, 0.9),  # not checked for couches
        found(7, 1, LEFT, 0.5),
        found(8, 2, LEFT, 0.3),
        found(8, 2, RIGHT, 0.9),
        found(8, 3, LEFT, 0.9),  # not checked for cats
    ]
    assert measure_confusion(images, results, NAMES, prior=0) == ((0, 1, 0.5),)


def test_detections_of_a_class_that_may_be_unlabelled_name_no_object_of_another() -> None:
    """Both images show a chair and a couch; in image 8 there may be more couches."""
    objects = [(row, column, box) for row in (0, 1) for column, box in enumerate((LEFT, RIGHT))]
    images = replace(
        make(objects),
        negatives=scipy.sparse.csr_matrix((2, 3), dtype=bool),
        not_exhaustive=scipy.sparse.csr_matrix(np.array([[0, 0, 0], [0, 1, 0]], bool)),
    )
    results = [
        found(7, 2, LEFT, 0.6),  # on a chair
        found(7, 1, LEFT, 0.3),
        found(8, 1, LEFT, 0.3),
        found(8, 2, LEFT, 0.9),
        found(8, 1, RIGHT, 0.3),  # all chairs are labelled: this is no chair
    ]
    confusion = measure_confusion(images, results, NAMES, prior=0)
    assert confusion == ((0, 1, 0.5), (1, 0, 1.0))
    results.append(found(8, 2, RIGHT, 0.9))  # the couch, found
    assert measure_confusion(images, results, NAMES, prior=0) == ((0, 1, 0.5),)


def test_an_iou_of_exactly_a_half_is_enough() -> None:
    """Half of a box in decimals, which float32 keeps with an error of either sign."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        left, top = rng.uniform(0, 300, 2).round(2).tolist()
        width, height = rng.uniform(10, 100, 2).round(2).tolist()
        images = make([(0, 0, [left, top, left + width, top + 2 * height])])
        half = {"image_id": 7, "bbox": [left, top, width, height], "score": 0.9}
        confusion = measure_confusion(images, [half | {"category_id": 2}], NAMES, prior=0)
        assert confusion == ((0, 1, 1.0),)
        both = [half | {"category_id": 1}, found(7, 1, [400.0, 0.0, 410.0, 10.0], 0.9)]
        assert measure_confusion(images, both, NAMES) == ()


def crowded_scene(seed: int) -> tuple[ImageSet, Detections]:
    """Six objects an image on average, a fifth of them crowds; each image checked for a class."""
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        corners = rng.uniform(0, 30, (count, 2))
        return np.hstack([corners, corners + rng.uniform(15, 40, (count, 2))])

    labelled = boxes(12)
    objects = [(n // 6, int(rng.integers(0, 3)), box.tolist()) for n, box in enumerate(labelled)]
    verified = np.zeros((2, 3), bool)
    verified[[0, 1], rng.integers(0, 3, 2)] = True
    images = replace(
        make(objects, (rng.random(12) < 0.2).tolist()),
        negatives=scipy.sparse.csr_matrix(verified),
    )
    near = np.repeat(np.arange(12), 4)
    return images, Detections(
        np.append(near // 6, rng.integers(0, 2, 30)),
        rng.integers(0, 3, 78),
        np.vstack([labelled[near] + rng.normal(0, 2, (48, 4)), boxes(30)]),
        rng.random(78),
    )


def by_loops(images: ImageSet, detections: Detections) -> dict[tuple[int, int], float]:
    """The pairs, without a prior."""
    instances = images.instances
    assert instances is not None
    assert images.negatives is not None
    names: dict[int, tuple[float, int]] = {}  # by object
    for row, label, box, score in zip(
        detections.image_rows.tolist(),
        detections.class_rows.tolist(),
        detections.boxes,
        detections.scores.tolist(),
        strict=True,
    ):
        own = np.flatnonzero(instances.image_rows == row)
        labels = set(instances.class_rows[own[~instances.crowd[own]]].tolist())
        checked = label in labels or bool(images.negatives[row, label])
        if not checked or score < 0.05:
            continue
        xywh = [np.hstack([b[..., :2], b[..., 2:] - b[..., :2]]) for b in (box, instances.boxes)]
        crowd = instances.crowd[own].tolist()
        overlaps = mask.iou(xywh[0][None], xywh[1][own].astype(float), crowd)[0]
        near = [
            (overlap, place)
            for overlap, place in zip(overlaps.tolist(), own.tolist(), strict=True)
            if overlap >= 0.5
        ]
        on_own = {instances.crowd[p] for _, p in near if instances.class_rows[p] == label}
        if on_own == {True}:
            continue
        objects = [one for one in near if not instances.crowd[one[1]]]
        closest = max(objects)[1] if objects else None
        if closest is not None and score > names.get(closest, (0.0, 0))[0]:
            names[closest] = (score, label)
    named = Counter(
        (int(instances.class_rows[place]), label) for place, (_, label) in names.items()
    )
    totals = Counter(int(instances.class_rows[place]) for place in names)
    mistaken = {}
    for label in totals:
        for other in {0, 1, 2} - {label}:
            rest = [one for one in totals if one not in (label, other)]
            usual = sum(named[one, other] / totals[one] for one in rest) / max(len(rest), 1)
            mistaken[label, other] = named[label, other] / totals[label] - usual
    return {pair: share for pair, share in mistaken.items() if share >= 0.05}


@pytest.mark.parametrize("seed", range(10))
def test_equals_loops_over_crowded_scenes(seed: int) -> None:
    images, detections = crowded_scene(seed)
    confusion = measure_confusion(images, detections, NAMES, prior=0)
    expected = by_loops(images, detections)
    assert expected
    assert {(row, other): share for row, other, share in confusion} == pytest.approx(expected)


def test_rows_are_those_of_the_names_given() -> None:
    results = [found(7, 2, LEFT, 0.6)]
    pairs = measure_confusion(IMAGES, results, ("couch", "chair"), prior=0)
    assert pairs == ((1, 0, 1.0),)
    assert measure_confusion(IMAGES, results, ("couch", "cat")) == ()


def test_no_detections_no_labels_no_objects() -> None:
    assert measure_confusion(IMAGES, [], NAMES) == ()
    assert measure_confusion(make([]), [found(7, 2, LEFT, 0.6)], NAMES) == ()


def test_results_of_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="not in the image set"):
        measure_confusion(IMAGES, [found(99, 1, LEFT, 0.9)], NAMES)

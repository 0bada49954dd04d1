"""Detections, matching and average precision: by hand, and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hardmine.detections import (
    Detections,
    average_precision_from_matches,
    bootstrap_weights,
    box_overlaps,
    load_detections,
    match_detections,
)
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances


def image_set(boxes: list[tuple[int, int, list[float], bool]], num_images: int = 2) -> ImageSet:
    """Images 10, 11, ... with boxes of (image row, class row, xyxy, crowd); classes a and b."""
    rows = sorted(boxes, key=lambda row: row[0])
    corners = np.array([row[2] for row in rows], np.float32).reshape(-1, 4)
    return ImageSet(
        root=Path(),
        ids=np.arange(10, 10 + num_images),
        paths=tuple(f"{row}.jpg" for row in range(num_images)),
        sizes=np.full((num_images, 2), 100, np.int32),
        class_names=("a", "b"),
        class_ids=np.array([1, 5]),
        instances=Instances(
            np.array([row[0] for row in rows], np.int32),
            np.array([row[1] for row in rows], np.int32),
            corners,
            np.prod(corners[:, 2:] - corners[:, :2], axis=1),
            np.array([row[3] for row in rows], bool),
            np.arange(len(rows), dtype=np.int64),
        ),
    )


def found(*rows: tuple[int, int, list[float], float]) -> Detections:
    """Detections of (image row, class row, xyxy, score)."""
    return Detections(
        np.array([row[0] for row in rows], np.int64),
        np.array([row[1] for row in rows], np.int64),
        np.array([row[2] for row in rows], np.float64).reshape(-1, 4),
        np.array([row[3] for row in rows], np.float64),
    )


SQUARE = [0, 0, 10, 10]
HALF = [0, 0, 10, 5]  # IoU with SQUARE is exactly 0.5
AWAY = [50, 50, 60, 60]


def places(images: ImageSet, detections: Detections, **options: Any) -> list[int]:
    """The instance that each given detection found at IoU 0.5; -1 for none, -2 if left out.

    No two detections have the same score.
    """
    matches = match_detections(images, detections, iou_thresholds=[0.5], **options)
    found = matches.found[:, 0].tolist()
    by_score = dict(zip(matches.detections.scores.tolist(), found, strict=True))
    return [by_score.get(score, -2) for score in detections.scores.tolist()]


def test_nothing_detected_and_nothing_labelled() -> None:
    empty = match_detections(image_set([]), found())
    assert empty.found.shape == (0, 10)
    assert np.isnan(average_precision_from_matches(empty)).all()
    unlabelled_class = match_detections(image_set([]), found((0, 0, SQUARE, 0.9)))
    assert np.isnan(average_precision_from_matches(unlabelled_class)).all()
    missed = match_detections(image_set([(0, 0, SQUARE, False)]), found())
    np.testing.assert_array_equal(average_precision_from_matches(missed), [0.0, np.nan])


@pytest.mark.parametrize(
    ("labels", "detections", "expected"),
    [
        # An IoU equal to the threshold reaches it.
        ([(0, 0, SQUARE, False)], [(0, 0, HALF, 0.9)], [0]),
        ([(0, 0, SQUARE, False)], [(0, 0, [0, 0, 10, 4.9], 0.9)], [-1]),
        # Other image, other class.
        ([(0, 0, SQUARE, False)], [(1, 0, SQUARE, 0.9), (0, 1, SQUARE, 0.8)], [-1, -1]),
        # The highest score takes the object, though another detection fits better.
        ([(0, 0, SQUARE, False)], [(0, 0, SQUARE, 0.3), (0, 0, HALF, 0.9)], [-1, 0]),
        # Each takes the object it overlaps most.
        (
            [(0, 0, SQUARE, False), (0, 0, [0, 0, 10, 8], False)],
            [(0, 0, [0, 0, 10, 8.5], 0.9), (0, 0, SQUARE, 0.8)],
            [1, 0],
        ),
        # A crowd may be found twice, but only by detections that find nothing else.
        (
            [(0, 0, SQUARE, True), (0, 0, HALF, False)],
            [(0, 0, SQUARE, 0.9), (0, 0, SQUARE, 0.8), (0, 0, HALF, 0.7)],
            [1, 0, 0],
        ),
    ],
)
def test_matching(labels: list[Any], detections: list[Any], expected: list[int]) -> None:
    assert places(image_set(labels), found(*detections)) == expected


def test_crowds_count_neither_way() -> None:
    images = image_set([(0, 0, SQUARE, True), (0, 0, AWAY, False)])
    matches = match_detections(
        images, found((0, 0, SQUARE, 0.9), (0, 0, AWAY, 0.5)), iou_thresholds=[0.5]
    )
    assert matches.ignored[:, 0].tolist() == [True, False]
    assert average_precision_from_matches(matches)[0] == 1.0


def test_only_the_highest_scores_of_an_image_and_class_are_kept() -> None:
    images = image_set([(0, 0, SQUARE, False)])
    rows = [(0, 0, AWAY, 0.9), (0, 0, AWAY, 0.8), (0, 0, SQUARE, 0.7), (1, 0, AWAY, 0.1)]
    assert places(images, found(*rows), max_detections=2) == [-1, -1, -2, -1]


def test_federated_labels_count_only_where_the_class_was_checked() -> None:
    # Class b: image 0 verified without it, image 1 not checked, image 2 has some of them labelled.
    images = image_set([(2, 1, SQUARE, False)], num_images=3)
    negatives = scipy.sparse.csr_matrix(np.array([[0, 1], [0, 0], [0, 0]], bool))
    not_exhaustive = scipy.sparse.csr_matrix(np.array([[0, 0], [0, 0], [0, 1]], bool))
    images = replace(images, negatives=negatives, not_exhaustive=not_exhaustive)
    detections = found(
        (0, 1, SQUARE, 0.9), (1, 1, SQUARE, 0.8), (2, 1, SQUARE, 0.7), (2, 1, AWAY, 0.6)
    )
    assert places(images, detections) == [-1, -2, 0, -1]
    matches = match_detections(images, detections, iou_thresholds=[0.5])
    assert matches.ignored[:, 0].tolist() == [False, False, True]


def test_overlaps() -> None:
    boxes = np.array([SQUARE, AWAY, [5, 5, 5, 9]], float)
    others = np.array([HALF, [5, 0, 15, 10], SQUARE], float)
    np.testing.assert_allclose(box_overlaps(boxes, others), [[0.5, 1 / 3, 1], [0, 0, 0], [0, 0, 0]])
    crowd = np.array([False, True, True])
    np.testing.assert_allclose(box_overlaps(boxes[:1], others, crowd), [[0.5, 0.5, 1]])
    assert box_overlaps(boxes[:0], others).shape == (0, 3)


def coco_form(images: ImageSet, detections: Detections) -> tuple[dict[str, Any], list[Any]]:
    """Labels and detections as COCO dictionaries."""

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    instances = images.instances
    assert instances is not None
    truth = {
        "images": [{"id": int(i), "height": 100, "width": 100} for i in images.ids],
        "categories": [
            {"id": int(i), "name": name}
            for i, name in zip(images.class_ids, images.class_names, strict=True)
        ],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(images.ids[instances.image_rows[row]]),
                "category_id": int(images.class_ids[instances.class_rows[row]]),
                "bbox": xywh(instances.boxes[row].astype(float)),
                "area": float(instances.areas[row]),
                "iscrowd": int(instances.crowd[row]),
            }
            for row in range(len(instances))
        ],
    }
    results = [
        {
            "image_id": int(images.ids[detections.image_rows[row]]),
            "category_id": int(images.class_ids[detections.class_rows[row]]),
            "bbox": xywh(detections.boxes[row]),
            "score": float(detections.scores[row]),
        }
        for row in range(len(detections))
    ]
    return truth, results


def reference(truth: dict[str, Any], results: list[Any]) -> COCOeval:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = truth
        coco.createIndex()
        evaluation = COCOeval(coco, coco.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def reference_ap(evaluation: COCOeval, area: int) -> np.ndarray:
    precision = evaluation.eval["precision"][:, :, :, area, -1]
    ap = precision.mean(axis=(0, 1))
    return np.where(ap > -1, ap, np.nan)


AREAS = [(0, np.inf), (0, 32**2), (32**2, 96**2), (96**2, 1e10)]


def crowded_scene(seed: int) -> tuple[ImageSet, Detections]:
    """Random boxes of two classes on 20 images, a seventh of them crowds.

    Integer coordinates and few distinct scores: many ties in IoU and in score.
    """
    rng = np.random.default_rng(seed)

    def boxes(count: int) -> np.ndarray:
        low = rng.integers(0, 12, (count, 2))
        return np.concatenate([low, low + rng.integers(1, 9, (count, 2))], axis=1) * 12.0

    labels = [
        (int(rng.integers(20)), int(rng.integers(2)), box.tolist(), bool(rng.random() < 0.15))
        for box in boxes(120)
    ]
    detections = found(
        *(
            (int(rng.integers(20)), int(rng.integers(2)), box.tolist(), rng.integers(1, 9) / 10)
            for box in np.concatenate([boxes(300), np.array([row[2] for row in labels])])
        )
    )
    return image_set(labels, num_images=20), detections


@pytest.mark.parametrize("seed", range(4))
def test_equals_pycocotools_on_crowded_random_scenes(seed: int) -> None:
    images, detections = crowded_scene(seed)
    evaluation = reference(*coco_form(images, detections))
    for area, area_range in enumerate(AREAS):
        measured = average_precision_from_matches(
            match_detections(images, detections, area_range=area_range)
        )
        np.testing.assert_allclose(measured, reference_ap(evaluation, area), atol=1e-9)


def test_inverted_boxes_count_as_in_pycocotools() -> None:
    inverted = [30.0, 30.0, 20.0, 40.0]
    images = image_set([(0, 0, SQUARE, False), (0, 1, AWAY, False)])
    detections = found((0, 0, inverted, 0.9), (0, 0, SQUARE, 0.8), (0, 1, inverted, 0.7))
    matches = match_detections(images, detections)
    assert matches.ignored[:, 0].tolist() == [True, False, True]
    evaluation = reference(*coco_form(images, detections))
    np.testing.assert_allclose(
        average_precision_from_matches(matches), reference_ap(evaluation, 0), atol=1e-9
    )


def test_equals_pycocotools_on_a_real_detector(photos: Path, photo_images: ImageSet) -> None:
    images = photo_images.subset(np.arange(250))
    ids = set(images.ids.tolist())
    results = json.loads((photos / "yolox_nano_results.json").read_text())
    results = [row for row in results if row["image_id"] in ids]
    truth = json.loads((photos / "instances.json").read_text())
    truth["images"] = [row for row in truth["images"] if row["id"] in ids]
    truth["annotations"] = [row for row in truth["annotations"] if row["image_id"] in ids]
    evaluation = reference(truth, results)
    for area, area_range in enumerate(AREAS):
        matches = match_detections(images, results, area_range=area_range)
        np.testing.assert_allclose(
            average_precision_from_matches(matches), reference_ap(evaluation, area), atol=1e-6
        )


def test_an_image_of_weight_k_counts_as_k_copies() -> None:
    images, results = crowded_scene(4)
    # All scores differ, so only copies of an image tie.
    results = replace(results, scores=results.scores + np.arange(len(results)) * 1e-7)
    truth, rows = coco_form(images, results)
    rng = np.random.default_rng(0)
    weights = bootstrap_weights(20, 3, rng, among=np.arange(5, 20))
    assert weights.sum(axis=1).tolist() == [15, 15, 15]
    assert not weights[:, :5].any()
    matches = match_detections(images, results)
    assert matches.ignored.any()
    measured = average_precision_from_matches(matches, weights)
    for drawn, ap in zip(weights.astype(int), measured, strict=True):
        copies = [(row, copy) for row in range(20) for copy in range(drawn[row])]
        ids = {(int(images.ids[row]), copy): number for number, (row, copy) in enumerate(copies)}
        repeated = {
            "images": [{"id": number, "height": 1, "width": 1} for number in ids.values()],
            "categories": truth["categories"],
            "annotations": [
                {**row, "id": number * 10_000 + row["id"], "image_id": number}
                for (image, _), number in ids.items()
                for row in truth["annotations"]
                if row["image_id"] == image
            ],
        }
        moved = [
            {**row, "image_id": number}
            for (image, _), number in ids.items()
            for row in rows
            if row["image_id"] == image
        ]
        np.testing.assert_allclose(ap, reference_ap(reference(repeated, moved), 0), atol=1e-9)


def test_some_classes_alone(photo_images: ImageSet, photos: Path) -> None:
    matches = match_detections(photo_images, photos / "yolox_nano_results.json")
    whole = average_precision_from_matches(matches)
    some = average_precision_from_matches(matches, classes=[3, 0])
    np.testing.assert_allclose(some, whole[[3, 0]])
    with pytest.raises(InputError, match=r"one value an image \(730\), got 3"):
        average_precision_from_matches(matches, [1.0, 1.0, 1.0])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([{"image_id": 10}], "entry 0 has no category_id; every entry must have image_id, "),
        (
            [{"image_id": 99, "category_id": 1, "bbox": [0, 0, 1, 1], "score": 0.5}],
            "1 image ids are not in the image set, the first 99",
        ),
        (
            [{"image_id": 10, "category_id": 2, "bbox": [0, 0, 1, 1], "score": 0.5}],
            r"category_id 2 is none of the \d+ categories of the labels \(\d+ to \d+\); were",
        ),
        ([{"image_id": 10, "category_id": 1, "bbox": [0, 0, 1], "score": 0.5}], "bbox"),
        # As many numbers as two boxes have.
        (
            [{"image_id": 10, "category_id": 1, "bbox": [0] * 8, "score": 0.5}],
            r"bbox \(4 numbers\)",
        ),
        (
            [{"image_id": 10, "category_id": 1, "bbox": [0, 0, 1, 1], "score": float("nan")}],
            "must be finite numbers, but entry 0 has .* score nan",
        ),
        (
            [{"image_id": 10, "category_id": 1.7, "bbox": [0, 0, 1, 1], "score": 0.5}],
            "category_id must be a whole number, but entry 0 has 1.7",
        ),
        (
            [{"image_id": 10, "category_id": float("nan"), "bbox": [0, 0, 1, 1], "score": 0.5}],
            "category_id must be a whole number, but entry 0 has nan",
        ),
        ("nowhere.json", r"no detections file at nowhere\.json"),
    ],
)
def test_bad_detections_are_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_detections(source, image_set([]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('[{"image_id"', "cannot be read as COCO results json"),
        ('{"images": []}', "expected a list of detections, got dict; is it an annotation file"),
    ],
)
def test_a_file_of_another_format_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(InputError, match=message):
        load_detections(path, image_set([]))


def test_labels_are_needed() -> None:
    with pytest.raises(InputError, match="no labels"):
        match_detections(replace(image_set([]), instances=None), [])


def test_an_empty_results_file_is_fine(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("[]")
    assert len(load_detections(path, image_set([]))) == 0

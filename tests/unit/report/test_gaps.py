"""Gaps by class: against pycocotools on real photos, and by hand on three images."""

from __future__ import annotations

import contextlib
import io
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hardmine.detections import Slice, match_detections
from hardmine.errors import InputError
from hardmine.records import ClassScores, ImageSet, Instances
from hardmine.report.diagnose import diagnose_gaps
from hardmine.report.gaps import (
    ClassGap,
    LabelCount,
    Measurement,
    Retrieval,
    class_gaps,
    measure_detections,
)
from hardmine.report.object_errors import class_errors

NAMES = ("cat", "dog", "bus")


def image_set(objects: list[tuple[int, int, tuple[float, ...]]]) -> ImageSet:
    """Three images of 100 × 100 with (image row, class row, box xyxy)."""
    boxes = np.array([box for *_, box in objects], np.float32).reshape(-1, 4)
    sides = boxes[:, 2:] - boxes[:, :2]
    return ImageSet(
        Path(),
        np.array([10, 20, 30]),
        ("a.jpg", "b.jpg", "c.jpg"),
        np.full((3, 2), 100, np.int32),
        NAMES,
        np.array([1, 2, 3]),
        Instances(
            np.array([image for image, *_ in objects], np.int32),
            np.array([row for _, row, _ in objects], np.int32),
            boxes,
            sides.prod(axis=1),
            np.zeros(len(objects), bool),
            np.arange(len(objects)),
        ),
    )


def detected(image: int, label: int, box: tuple[float, ...], score: float) -> dict[str, Any]:
    left, top, right, bottom = box
    xywh = [left, top, right - left, bottom - top]
    return {"image_id": image, "category_id": label, "bbox": xywh, "score": score}


@pytest.fixture
def images() -> ImageSet:
    return image_set(
        [
            (0, 0, (0, 0, 20, 20)),
            (0, 0, (40, 40, 80, 80)),
            (1, 0, (0, 0, 20, 20)),
            (1, 1, (50, 50, 90, 90)),
            (2, 0, (10, 10, 30, 30)),
        ]
    )


FOUND = [
    detected(10, 1, (0, 0, 20, 20), 0.9),  # the first cat, found
    detected(10, 1, (40, 40, 60, 80), 0.7),  # the second: IoU 0.5, found
    detected(20, 2, (0, 0, 20, 20), 0.92),  # the third, detected as a dog
    detected(20, 2, (50, 50, 90, 90), 0.9),  # the dog, found
    detected(30, 2, (60, 60, 90, 90), 0.95),  # a dog on nothing
]


def test_every_object_has_one_outcome(images: ImageSet) -> None:
    cat, dog, bus = class_errors(images, match_detections(images, FOUND))
    assert (cat.found, cat.misplaced, cat.confused, cat.missed) == (0.5, 0.0, 0.25, 0.25)
    assert cat.confused_with == (("dog", 1),)
    assert cat.threshold == 0.7
    assert cat.background == 0.0
    # Only the detection of score 0.95 lies on background.
    assert (dog.found, dog.threshold, dog.background) == (1.0, 0.9, 1 / 3)
    assert bus.num_objects == 0
    assert math.isnan(bus.found)


@pytest.mark.parametrize(
    ("turned", "reason"),
    [
        (lambda x, y, w, h: (x / 640, y / 480, w / 640, h / 480), "divided by the image's size"),
        (
            lambda x, y, w, h: (x + 300, y + 200, x + w + 300, y + h + 200),
            "as x1, y1, x2, y2 would",
        ),
    ],
    ids=["shares", "corners"],
)
def test_boxes_in_another_form_are_refused(images: ImageSet, turned: Any, reason: str) -> None:
    wrong = [{**one, "bbox": turned(*one["bbox"])} for one in FOUND]
    with pytest.raises(InputError, match=f"^0 of 5 detections lie on an object.*{reason}"):
        measure_detections(images, wrong)


@pytest.mark.parametrize(("score", "misplaced"), [(0.93, 0.25), (0.91, 0.0)])
def test_the_highest_scored_wrong_detection_decides(
    images: ImageSet, score: float, misplaced: float
) -> None:
    near = [*FOUND, detected(20, 1, (0, 0, 8, 20), score)]  # right class, IoU 0.4
    cat = class_errors(images, match_detections(images, near))[0]
    assert (cat.misplaced, cat.confused) == (misplaced, 0.25 - misplaced)


def test_a_class_never_found_gets_the_threshold_of_all_classes(images: ImageSet) -> None:
    only = [one for one in FOUND if one["category_id"] == 1]
    dog = class_errors(images, match_detections(images, only))[1]
    assert (dog.found, dog.missed, dog.threshold) == (0.0, 1.0, 0.7)
    assert math.isnan(dog.background)


def test_a_score_that_right_and_wrong_detections_share_counts_with_all_of_them(
    images: ImageSet,
) -> None:
    """At 0.5 one more cat is found, with ten detections of the same score on nothing."""
    wrong = [detected(30, 1, (60, 60, 70 + n, 90), 0.5) for n in range(10)]
    tied = [*FOUND, detected(30, 1, (10, 10, 30, 30), 0.5), *wrong]
    cat = class_errors(images, match_detections(images, tied))[0]
    assert (cat.threshold, cat.found, cat.num_detections) == (0.7, 0.5, 2)
    # Nothing else is detected: the dogs, never found, get the threshold of the cats.
    cats = [one for one in tied if one["category_id"] == 1]
    assert class_errors(images, match_detections(images, cats))[1].threshold == 0.7


def test_an_iou_of_exactly_a_half_is_confused_and_of_a_tenth_misplaced() -> None:
    """Parts of boxes in decimals, which float32 keeps with an error of either sign."""
    rng = np.random.default_rng(0)
    for _ in range(30):
        left, top = rng.uniform(0, 40, 2).round(2).tolist()
        width, height = rng.uniform(1, 5, 2).round(2).tolist()
        one = {"image_id": 10, "bbox": [left, top, width, height], "score": 0.9}
        for label, parts in ((2, 2), (1, 10)):
            cats = image_set([(0, 0, (left, top, left + width, top + parts * height))])
            wrong = match_detections(cats, [one | {"category_id": label}])
            cat = class_errors(cats, wrong)[0]
            assert (cat.confused, cat.misplaced, cat.missed) == (label == 2, label == 1, 0.0)


def test_labels_of_both_sets_are_matched_by_name(images: ImageSet) -> None:
    train = replace(images, class_names=("dog", "Cat", "train"))
    gaps, _ = class_gaps(measure_detections(images, FOUND, draws=0), val=images, train=train)
    cat = next(gap for gap in gaps if gap.name == "cat")
    assert cat.val == LabelCount(instances=4, images=3, small=0.75)
    assert cat.train == LabelCount(instances=1, images=1, small=0.0)
    assert next(gap for gap in gaps if gap.name == "bus").train is None
    assert [gap.name for gap in gaps][-1] == "bus"  # unknown APs last


@pytest.mark.parametrize(
    ("detections", "message"),
    [
        pytest.param([], "there are no detections", id="nothing found"),
        pytest.param([detected(99, 1, (0, 0, 1, 1), 0.5)], "not in the image set", id="image"),
        pytest.param([detected(10, 99, (0, 0, 1, 1), 0.5)], "99 is none of the 3", id="class"),
    ],
)
def test_detections_of_another_set(
    images: ImageSet, detections: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        measure_detections(images, detections)


def test_metrics_of_another_set(images: ImageSet) -> None:
    scores = ClassScores(("sofa", "lamp"), np.array([0.1, 0.2]), source="x.csv")
    with pytest.raises(InputError, match="name none of the 3 classes"):
        class_gaps(Measurement.from_scores(scores), val=images)
    unknown = ClassScores(NAMES, np.full(3, np.nan), source="x.csv")
    with pytest.raises(InputError, match=r"x\.csv: no class has a known AP"):
        class_gaps(Measurement.from_scores(unknown))


def test_per_class_ap_is_that_of_pycocotools(photos: Path, photo_images: ImageSet) -> None:
    results = photos / "yolox_nano_results.json"
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(photos / "instances.json"))
        peer = COCOeval(truth, truth.loadRes(str(results)), "bbox")
        peer.evaluate()
        peer.accumulate()
    precision = peer.eval["precision"]  # (T, R, C, areas, max detections)
    by_area = np.where(precision > -1, precision, np.nan)[..., -1].mean(axis=(0, 1))
    measured = measure_detections(photo_images, results, draws=20)
    np.testing.assert_allclose(measured.scores.ap, by_area[:, 0], atol=1e-6)
    np.testing.assert_allclose(measured.scores.ap_by_size, by_area[:, 1:], atol=1e-6)
    known = ~np.isnan(measured.scores.ap)
    low, high = measured.intervals[known].T
    assert (low <= high).all()
    # The interval is wider for fewer objects.
    counts = measured.scores.num_instances[known]
    width = high - low
    assert width[counts < 30].mean() > 2 * width[counts > 100].mean()
    for one in measured.errors:
        if one.num_objects:
            assert one.found + one.misplaced + one.confused + one.missed == pytest.approx(1)


def gap(name: str, ap: float, **fields: Any) -> ClassGap:
    return ClassGap(name, ap, need=0.0 if ap >= 0.5 else 1 - ap, **fields)


def diagnosed(one: ClassGap, worst: dict[str, Slice] | None = None) -> ClassGap:
    """Diagnose a class among classes of high AP."""
    strong = [
        gap(f"strong {n}", 0.7, val=LabelCount(100, 80, 0.1), train=LabelCount(1000, 800, 0.1))
        for n in range(5)
    ]
    return diagnose_gaps([one, *strong], worst_contexts=worst)[0]


PLENTY, TRAINED = LabelCount(100, 80, 0.1), LabelCount(1000, 800, 0.1)
FINE = {"threshold": 0.3, "num_objects": 100, "num_detections": 80}


def errors(**shares: Any) -> Any:
    from hardmine.report.object_errors import ClassErrors

    given = {"misplaced": 0.0, "confused": 0.0, "missed": 0.0, "background": 0.0} | shares
    confused_with = given.pop("confused_with", ())
    found = 1 - given["misplaced"] - given["confused"] - given["missed"]
    return ClassErrors(found=found, confused_with=confused_with, **given, **FINE)


@pytest.mark.parametrize(
    ("fields", "kind", "words"),
    [
        pytest.param({"val": LabelCount(4, 3, 0.0)}, "noise", "Only 4 objects", id="noise"),
        pytest.param(
            {"val": PLENTY, "low": 0.1, "high": 0.9}, "noise", "reaches 90 %", id="wide interval"
        ),
        pytest.param(
            {"val": PLENTY, "train": LabelCount(20, 1, 0.0)},
            "few",
            "20 training objects in 1 image",
            id="few",
        ),
        pytest.param(
            {"val": LabelCount(100, 80, 0.8), "by_size": (0.05, 0.3, 0.6)},
            "small",
            "80 % are below 32² pixels; AP is 5.0 % on these",
            id="small",
        ),
        pytest.param(
            {"val": PLENTY, "errors": errors(confused=0.3, confused_with=(("dog", 25),))},
            "confused",
            "most often dog (25 of 100)",
            id="confused",
        ),
        pytest.param(
            {"val": PLENTY, "errors": errors(misplaced=0.4)}, "misplaced", "40 %", id="misplaced"
        ),
        pytest.param(
            {"val": PLENTY, "errors": errors(background=0.6)}, "background", "60 %", id="background"
        ),
        pytest.param({"val": PLENTY, "errors": errors(missed=0.7)}, "missed", "70 %", id="missed"),
        pytest.param(
            {"val": PLENTY, "train": TRAINED, "retrieval": Retrieval(0.8, 900, 700, suspects=200)},
            "labels",
            "200 images without the label",
            id="labels",
        ),
    ],
)
def test_the_kind_of_gap(fields: dict[str, Any], kind: str, words: str) -> None:
    one = diagnosed(gap("cat", 0.2, **fields))
    assert one.kinds == (kind,)
    assert words in one.sentence
    assert one.advice


def test_a_hard_context() -> None:
    worse = Slice("cat", "at night", 20, 30, 0.1, 0.6, 0.5, 0.4, 0.6, 0.66)
    one = diagnosed(gap("cat", 0.2, val=PLENTY), {"cat": worse})
    assert one.kinds == ("contexts",)
    assert "Hard at night: AP 10.0 % on images that answer this, 60.0 % on the rest" in one.sentence


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(
            {"val": LabelCount(100, 80, 0.8), "by_size": (0.5, 0.2, 0.1)}, id="small is best"
        ),
        pytest.param(
            {"val": PLENTY, "errors": errors(confused=0.2, confused_with=(("dog", 2),))},
            id="two confusions are chance",
        ),
        pytest.param({"val": PLENTY, "train": TRAINED}, id="nothing unusual"),
    ],
)
def test_no_kind_without_evidence(fields: dict[str, Any]) -> None:
    one = diagnosed(gap("cat", 0.2, **fields))
    assert one.kinds == ()
    assert "no reason that this report measures" in one.sentence


def test_a_strong_class() -> None:
    assert diagnosed(gap("cat", 0.8)).sentence == "Not weaker than the mean class."


@pytest.mark.parametrize(
    ("name", "validated", "sentence", "advice"),
    [
        ("dog", True, "AP unknown: the metrics have no value for it.", "Add its AP to the metrics"),
        ("bus", True, "AP unknown: no validation image shows it.", "Validate on images"),
        ("dog", False, "AP unknown.", "Validate on images"),
    ],
)
def test_why_an_ap_is_unknown(
    images: ImageSet, name: str, validated: bool, sentence: str, advice: str
) -> None:
    """Metrics name the cat alone; the images show cats and a dog, and no bus."""
    scores = Measurement.from_scores(ClassScores(("cat",), np.array([0.3]), source="x.csv"))
    gaps, _ = class_gaps(scores, val=images if validated else None, train=images)
    one = next(one for one in diagnose_gaps(gaps) if one.name == name)
    assert one.sentence == sentence
    assert one.advice.startswith(advice)

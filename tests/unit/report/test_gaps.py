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

from hardmine.detections.detections import match_detections
from hardmine.detections.slices import Slice
from hardmine.errors import InputError
from hardmine.records import ClassScores, ImageSet, Instances
from hardmine.report.diagnose import judge_gaps
from hardmine.report.gaps import (
    Amount,
    ClassGap,
    Retrieval,
    class_gaps,
    measure_detections,
    scores_alone,
)
from hardmine.report.object_errors import error_types

NAMES = ("cat", "dog", "bus")


def labelled(objects: list[tuple[int, int, tuple[float, ...]]]) -> ImageSet:
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
def world() -> ImageSet:
    return labelled(
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
    detected(10, 1, (40, 40, 60, 80), 0.7),  # the second: overlap 0.5, found
    detected(20, 2, (0, 0, 20, 20), 0.92),  # the third, taken for a dog
    detected(20, 2, (50, 50, 90, 90), 0.9),  # the dog, found
    detected(30, 2, (60, 60, 90, 90), 0.95),  # a dog on nothing
]


def test_every_object_has_one_fate(world: ImageSet) -> None:
    cat, dog, bus = error_types(world, match_detections(world, FOUND))
    assert (cat.found, cat.misplaced, cat.confused, cat.missed) == (0.5, 0.0, 0.25, 0.25)
    assert cat.confused_with == (("dog", 1),)
    assert cat.threshold == 0.7
    assert cat.background == 0.0
    # Only the detection of 0.95 lies on nothing at all.
    assert (dog.found, dog.threshold, dog.background) == (1.0, 0.9, 1 / 3)
    assert bus.num_objects == 0
    assert math.isnan(bus.found)


@pytest.mark.parametrize(("score", "misplaced"), [(0.93, 0.25), (0.91, 0.0)])
def test_the_surest_wrong_detection_tells(world: ImageSet, score: float, misplaced: float) -> None:
    near = [*FOUND, detected(20, 1, (0, 0, 8, 20), score)]  # right class, overlap 0.4
    cat = error_types(world, match_detections(world, near))[0]
    assert (cat.misplaced, cat.confused) == (misplaced, 0.25 - misplaced)


def test_a_class_never_found_is_judged_at_the_score_of_all(world: ImageSet) -> None:
    only = [one for one in FOUND if one["category_id"] == 1]
    dog = error_types(world, match_detections(world, only))[1]
    assert (dog.found, dog.missed, dog.threshold) == (0.0, 1.0, 0.7)
    assert math.isnan(dog.background)


def test_amounts_of_both_sets_are_matched_by_name(world: ImageSet) -> None:
    train = replace(world, class_names=("dog", "Cat", "train"))
    gaps, _ = class_gaps(measure_detections(world, FOUND, draws=0), val=world, train=train)
    cat = next(gap for gap in gaps if gap.name == "cat")
    assert cat.val == Amount(instances=4, images=3, small=0.75)
    assert cat.train == Amount(instances=1, images=1, small=0.0)
    assert next(gap for gap in gaps if gap.name == "bus").train is None
    assert [gap.name for gap in gaps][-1] == "bus"  # unknown APs last


@pytest.mark.parametrize(
    ("detections", "says"),
    [
        pytest.param([], "there are no detections", id="nothing found"),
        pytest.param([detected(99, 1, (0, 0, 1, 1), 0.5)], "not in the image set", id="image"),
        pytest.param([detected(10, 99, (0, 0, 1, 1), 0.5)], "not in the image set", id="class"),
    ],
)
def test_detections_of_another_set(
    world: ImageSet, detections: list[dict[str, Any]], says: str
) -> None:
    with pytest.raises(InputError, match=says):
        measure_detections(world, detections)


def test_metrics_of_another_set(world: ImageSet) -> None:
    scores = ClassScores(("sofa", "lamp"), np.array([0.1, 0.2]), source="x.csv")
    with pytest.raises(InputError, match="name none of the 3 classes"):
        class_gaps(scores_alone(scores), val=world)
    unknown = ClassScores(NAMES, np.full(3, np.nan), source="x.csv")
    with pytest.raises(InputError, match=r"x\.csv: no class has a known AP"):
        class_gaps(scores_alone(unknown))


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
    # Fewer objects tell less: the width of the interval falls with their number.
    counts = measured.scores.num_instances[known]
    width = high - low
    assert width[counts < 30].mean() > 2 * width[counts > 100].mean()
    for one in measured.errors:
        if one.num_objects:
            assert one.found + one.misplaced + one.confused + one.missed == pytest.approx(1)


def gap(name: str, ap: float, **said: Any) -> ClassGap:
    return ClassGap(name, ap, need=0.0 if ap >= 0.5 else 1 - ap, **said)


def judged(one: ClassGap, slices: dict[str, Slice] | None = None) -> ClassGap:
    """Among classes that are well."""
    well = [
        gap(f"well {n}", 0.7, val=Amount(100, 80, 0.1), train=Amount(1000, 800, 0.1))
        for n in range(5)
    ]
    return judge_gaps([one, *well], slices=slices)[0]


PLENTY, TRAINED = Amount(100, 80, 0.1), Amount(1000, 800, 0.1)
FINE = {"threshold": 0.3, "num_objects": 100, "num_detections": 80}


def errors(**shares: Any) -> Any:
    from hardmine.report.object_errors import ClassErrors

    given = {"misplaced": 0.0, "confused": 0.0, "missed": 0.0, "background": 0.0} | shares
    confused_with = given.pop("confused_with", ())
    found = 1 - given["misplaced"] - given["confused"] - given["missed"]
    return ClassErrors(found=found, confused_with=confused_with, **given, **FINE)


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        pytest.param({"val": Amount(4, 3, 0.0)}, "noise", "Only 4 objects", id="noise"),
        pytest.param(
            {"val": PLENTY, "low": 0.1, "high": 0.9}, "noise", "reaches 90 %", id="wide interval"
        ),
        pytest.param(
            {"val": PLENTY, "train": Amount(20, 1, 0.0)},
            "few",
            "20 training objects in 1 image",
            id="few",
        ),
        pytest.param(
            {"val": Amount(100, 80, 0.8), "by_size": (0.05, 0.3, 0.6)},
            "small",
            "80 % are below 32² pixels; AP 5.0 % there",
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
def test_the_kind_of_gap(said: dict[str, Any], kind: str, words: str) -> None:
    one = judged(gap("cat", 0.2, **said))
    assert one.kinds == (kind,)
    assert words in one.sentence
    assert one.advice


def test_a_hard_condition() -> None:
    worse = Slice("cat", 0, "at night", 20, 30, 0.1, 0.6, 0.5, 0.4, 0.6, 0.66)
    one = judged(gap("cat", 0.2, val=PLENTY), {"cat": worse})
    assert one.kinds == ("conditions",)
    assert "Hard at night: AP 10.0 % on images that answer this, 60.0 % elsewhere" in one.sentence


@pytest.mark.parametrize(
    "said",
    [
        pytest.param({"val": Amount(100, 80, 0.8), "by_size": (0.5, 0.2, 0.1)}, id="small is best"),
        pytest.param(
            {"val": PLENTY, "errors": errors(confused=0.2, confused_with=(("dog", 2),))},
            id="two confusions are chance",
        ),
        pytest.param({"val": PLENTY, "train": TRAINED}, id="nothing odd"),
    ],
)
def test_nothing_is_made_up(said: dict[str, Any]) -> None:
    one = judged(gap("cat", 0.2, **said))
    assert one.kinds == ()
    assert "nothing measured here says why" in one.sentence


def test_a_class_that_is_well_or_unknown() -> None:
    assert judged(gap("cat", 0.8)).sentence == "Not weaker than the mean class."
    assert "nothing is known" in judged(replace(gap("cat", math.nan), val=Amount(0, 0, 0))).sentence

"""What happened to each labelled object: found, misplaced, confused or missed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.detections import (
    Matches,
    best_threshold,
    best_thresholds,
    box_overlaps,
    boxes_as_written,
    reaches,
)
from hardmine.records import ImageSet

_FOUND_IOU = 0.5
_MISPLACED_IOU = 0.1  # a detection below it does not lie on the object at all
_NUM_CONFUSED_WITH = 5


@dataclass(frozen=True)
class ClassErrors:
    """What happened to a class's objects, at the score threshold where the class's F1 is best.

    The four shares of objects sum to 1.

    Attributes:
        threshold: The score threshold; detections below it are left out.
        found: Share of the objects found, at IoU 0.5.
        misplaced: Share whose highest-scored detection has the right class but too small an IoU.
        confused: Share whose highest-scored detection has another class.
        missed: Share that no detection lies on.
        confused_with: Other classes and how many objects were detected as each, most first.
        num_objects: Objects that count.
        num_detections: The class's detections at or above the threshold.
        background: Share of these that lie on no labelled object at all.
    """

    threshold: float
    found: float
    misplaced: float
    confused: float
    missed: float
    confused_with: tuple[tuple[str, int], ...]
    num_objects: int
    num_detections: int
    background: float


def class_errors(images: ImageSet, matches: Matches) -> list[ClassErrors]:
    """Sort each class's objects and detections by what went wrong.

    Scores of different classes are not comparable, so each class gets the threshold where its own
    F1 is best. A class of which nothing was found gets the threshold of all classes together. Of
    several wrong detections on an object, the one of highest score decides.

    Args:
        images: N labelled images.
        matches: Of their detections; must hold the IoU threshold 0.5.

    Returns:
        One for each class; shares are NaN where a class has no objects or no detections.
    """
    instances = images.instances
    assert instances is not None
    level = int(np.argmin(np.abs(matches.iou_thresholds - _FOUND_IOU)))
    found, ignored = matches.found[:, level], matches.ignored[:, level]
    thresholds = _thresholds(matches, level)
    detections = matches.detections
    kept = detections.scores >= thresholds[detections.class_rows]
    true = kept & (found >= 0) & ~ignored
    was_found = np.zeros(len(instances), bool)
    was_found[found[true]] = True

    # Detections that found nothing: on which objects do they lie?
    false = np.flatnonzero(kept & (found < 0) & ~ignored)
    false = false[np.argsort(detections.image_rows[false], kind="stable")]
    starts = np.searchsorted(instances.image_rows, np.arange(len(images) + 1))
    bounds = np.searchsorted(detections.image_rows[false], np.arange(len(images) + 1))
    best_score = np.full(len(instances), -np.inf)
    detected_as = np.full(len(instances), -1)
    on_nothing = np.zeros(len(detections), bool)
    boxes = boxes_as_written(instances.boxes)
    for image in np.unique(detections.image_rows[false]).tolist():
        rows = false[bounds[image] : bounds[image + 1]]
        objects = slice(starts[image], starts[image + 1])
        overlaps = box_overlaps(detections.boxes[rows], boxes[objects], instances.crowd[objects])
        touches = reaches(overlaps, _MISPLACED_IOU)
        on_nothing[rows] = ~touches.any(axis=1)
        same = detections.class_rows[rows][:, None] == instances.class_rows[objects][None]
        on_object = np.where(same, touches, reaches(overlaps, _FOUND_IOU))
        scores = np.where(on_object, detections.scores[rows][:, None], -np.inf)
        if scores.size:
            best_score[objects] = scores.max(axis=0)
            detected_as[objects] = detections.class_rows[rows][scores.argmax(axis=0)]
    detected = np.isfinite(best_score)
    not_found = matches.counted & ~was_found
    misplaced = not_found & detected & (detected_as == instances.class_rows)
    confused = not_found & detected & (detected_as != instances.class_rows)

    def share(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return _ratio(_count(instances.class_rows[chosen], matches.num_classes), num_objects)

    num_objects = matches.count_objects()
    num_detections = _count(detections.class_rows[kept & ~ignored], matches.num_classes)
    background = _count(detections.class_rows[on_nothing], matches.num_classes)
    shares = {
        "found": share(was_found & matches.counted),
        "misplaced": share(misplaced),
        "confused": share(confused),
        "missed": share(not_found & ~detected),
        "background": _ratio(background, num_detections),
    }
    return [
        ClassErrors(
            threshold=float(thresholds[row]),
            confused_with=_most_common(
                detected_as[confused & (instances.class_rows == row)], images.class_names
            ),
            num_objects=int(num_objects[row]),
            num_detections=int(num_detections[row]),
            **{name: float(values[row]) for name, values in shares.items()},
        )
        for row in range(matches.num_classes)
    ]


def _thresholds(matches: Matches, level: int) -> npt.NDArray[np.float64]:
    """(C,) score threshold at which each class's F1 is best, at one IoU threshold."""
    counted = ~matches.ignored[:, level]
    overall = best_threshold(
        matches.detections.scores[counted],
        matches.correct[counted, level],
        int(matches.count_objects().sum()),
    )
    best = best_thresholds(matches, level)
    best[np.isinf(best)] = 0.0 if np.isinf(overall) else overall
    return best


def _count(rows: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.int64]:
    return np.bincount(rows, minlength=length)


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.divide(
        part, whole, out=np.full(len(whole), np.nan), where=whole > 0
    )
    return shares


def _most_common(
    rows: npt.NDArray[np.int64], names: tuple[str, ...]
) -> tuple[tuple[str, int], ...]:
    counts = Counter(rows.tolist()).most_common(_NUM_CONFUSED_WITH)
    return tuple((names[row], count) for row, count in counts)

"""What became of every labelled object: found, misplaced, taken for another class, or missed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.detections.detections import Matches
from hardmine.detections.matching import box_overlaps
from hardmine.records import ImageSet

_FOUND, _NEAR = 0.5, 0.1  # overlaps that count as found, and as on the object at all


@dataclass(frozen=True)
class ClassErrors:
    """How a class's objects fared at the score where its F1 is best.

    The four shares of objects sum to 1.

    Attributes:
        threshold: The score; detections below it are not looked at.
        found: Share of the objects found, at an overlap of 0.5.
        misplaced: Share whose surest detection has the right class and too small an overlap.
        confused: Share whose surest detection has another class.
        missed: Share that no detection lies on.
        confused_with: Other classes and how many objects were taken for each, most first.
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


def error_types(images: ImageSet, matches: Matches) -> list[ClassErrors]:
    """Sort each class's objects and detections by what went wrong.

    Scores mean different things for different classes, so each class is judged at the score where
    its own F1 is best; a class of which nothing was found, at that of all classes together. Of
    several wrong detections on an object the surest tells.

    Args:
        images: N labelled images.
        matches: Of their detections; must hold the overlap 0.5.

    Returns:
        One a class; shares are NaN where a class has no objects or no detections.
    """
    instances = images.instances
    assert instances is not None
    level = int(np.argmin(np.abs(matches.iou_thresholds - _FOUND)))
    found, ignored = matches.found[:, level], matches.ignored[:, level]
    thresholds = best_thresholds(matches, level)
    detections = matches.detections
    kept = detections.scores >= thresholds[detections.class_rows]
    right = kept & (found >= 0) & ~ignored
    was_found = np.zeros(len(instances), bool)
    was_found[found[right]] = True

    # Those that found nothing: on which objects do they lie?
    wrong = np.flatnonzero(kept & (found < 0) & ~ignored)
    wrong = wrong[np.argsort(detections.image_rows[wrong], kind="stable")]
    starts = np.searchsorted(instances.image_rows, np.arange(len(images) + 1))
    bounds = np.searchsorted(detections.image_rows[wrong], np.arange(len(images) + 1))
    surest = np.full(len(instances), -np.inf)
    taken_for = np.full(len(instances), -1)
    on_nothing = np.zeros(len(detections), bool)
    for image in np.unique(detections.image_rows[wrong]).tolist():
        rows = wrong[bounds[image] : bounds[image + 1]]
        here = slice(starts[image], starts[image + 1])
        overlaps = box_overlaps(
            detections.boxes[rows], instances.boxes[here], instances.crowd[here]
        )
        on_nothing[rows] = (overlaps < _NEAR).all(axis=1)
        same = detections.class_rows[rows][:, None] == instances.class_rows[here][None]
        tells = np.where(same, overlaps >= _NEAR, overlaps >= _FOUND)
        scores = np.where(tells, detections.scores[rows][:, None], -np.inf)
        best = scores.argmax(axis=0) if scores.size else np.zeros(scores.shape[1], int)
        if scores.size:
            surest[here] = scores.max(axis=0)
            taken_for[here] = detections.class_rows[rows][best]
    seen = np.isfinite(surest)
    open_to = matches.counted & ~was_found
    misplaced = open_to & seen & (taken_for == instances.class_rows)
    confused = open_to & seen & (taken_for != instances.class_rows)

    def share(chosen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return _ratio(_count(instances.class_rows[chosen], matches.num_classes), num_objects)

    num_objects = _count(instances.class_rows[matches.counted], matches.num_classes)
    num_detections = _count(detections.class_rows[kept & ~ignored], matches.num_classes)
    background = _count(detections.class_rows[on_nothing], matches.num_classes)
    columns = (
        share(was_found & matches.counted),
        share(misplaced),
        share(confused),
        share(open_to & ~seen),
        _ratio(background, num_detections),
    )
    return [
        ClassErrors(
            threshold=float(thresholds[row]),
            found=float(columns[0][row]),
            misplaced=float(columns[1][row]),
            confused=float(columns[2][row]),
            missed=float(columns[3][row]),
            confused_with=_names(
                taken_for[confused & (instances.class_rows == row)], images.class_names
            ),
            num_objects=int(num_objects[row]),
            num_detections=int(num_detections[row]),
            background=float(columns[4][row]),
        )
        for row in range(matches.num_classes)
    ]


def best_thresholds(matches: Matches, level: int) -> npt.NDArray[np.float64]:
    """(C,) score at which each class's F1 is best at one of the overlaps of ``matches``."""
    found = (matches.found[:, level] >= 0) & ~matches.ignored[:, level]
    told = ~matches.ignored[:, level]
    scores, classes = matches.detections.scores, matches.detections.class_rows
    objects = _count(matches.instance_classes[matches.counted], matches.num_classes)
    overall = _best_threshold(scores[told], found[told], int(objects.sum()))
    bounds = np.searchsorted(classes, np.arange(matches.num_classes + 1))
    best = np.full(matches.num_classes, overall)
    for row in range(matches.num_classes):
        part = slice(bounds[row], bounds[row + 1])
        if found[part].any():
            mine = told[part]
            best[row] = _best_threshold(scores[part][mine], found[part][mine], int(objects[row]))
    return best


def _best_threshold(
    scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], objects: int
) -> float:
    if not right.any():
        return 0.0
    order = np.argsort(-scores, kind="stable")
    f1 = 2 * np.cumsum(right[order]) / (np.arange(1, len(scores) + 1) + objects)
    return float(scores[order][f1.argmax()])


def _count(rows: npt.NDArray[np.integer], length: int) -> npt.NDArray[np.int64]:
    return np.bincount(rows, minlength=length)


def _ratio(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.divide(
        part, whole, out=np.full(len(whole), np.nan), where=whole > 0
    )
    return shares


def _names(rows: npt.NDArray[np.int64], names: tuple[str, ...]) -> tuple[tuple[str, int], ...]:
    return tuple((names[row], count) for row, count in Counter(rows.tolist()).most_common(5))

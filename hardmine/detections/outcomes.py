"""Where a detector fails: which objects it misses, and which of its detections are false."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from hardmine.detections.matching import Matches
from hardmine.records import ImageSet


@dataclass(frozen=True)
class Outcomes:
    """M places of the images, each an object or a detection, and where the detector failed.

    Attributes:
        image_rows: (M,) int64.
        class_rows: (M,) int64.
        boxes: (M, 4) float64 xyxy in pixels.
        failed: (M,) bool.
    """

    image_rows: npt.NDArray[np.int64]
    class_rows: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    failed: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.failed)

    def take(self, chosen: npt.NDArray[np.bool_]) -> Outcomes:
        """Keep some."""
        return Outcomes(
            self.image_rows[chosen],
            self.class_rows[chosen],
            self.boxes[chosen],
            self.failed[chosen],
        )


def find_outcomes(images: ImageSet, matches: Matches) -> tuple[Outcomes, Outcomes]:
    """Objects, of which some are missed, and confident detections, of which some are false.

    An object that only a detection of another class found is missed, and that detection is false.

    Args:
        images: The labelled images that were matched.
        matches: The first IoU threshold decides what is found.
    """
    instances, correct = images.instances, matches.correct[:, 0]
    assert instances is not None
    confident = confident_detections(matches)
    missed = matches.counted.copy()
    missed[matches.found[correct & confident, 0]] = False
    counted = np.flatnonzero(matches.counted)
    objects = Outcomes(
        instances.image_rows[counted].astype(np.int64),
        instances.class_rows[counted].astype(np.int64),
        instances.boxes[counted].astype(np.float64),
        missed[counted],
    )
    kept = np.flatnonzero(confident & ~matches.ignored[:, 0])
    detections = matches.detections.take(kept)
    return objects, Outcomes(
        detections.image_rows, detections.class_rows, detections.boxes, ~correct[kept]
    )


def confident_detections(matches: Matches) -> npt.NDArray[np.bool_]:
    """(D,) detections whose score reaches the threshold at which F1 of their class is largest.

    None of a class is confident if none of its detections is right.
    """
    return matches.detections.scores >= best_thresholds(matches)[matches.detections.class_rows]


def best_thresholds(matches: Matches, level: int = 0) -> npt.NDArray[np.float64]:
    """(C,) score threshold at which F1 of each class is largest; inf where no detection is right.

    Args:
        matches: Detections that are ignored count neither way.
        level: Which of the IoU thresholds decides what is right.
    """
    considered = ~matches.ignored[:, level]
    scores, right = matches.detections.scores[considered], matches.correct[considered, level]
    # Detections come by class.
    classes = np.arange(matches.num_classes + 1)
    edges = np.searchsorted(matches.detections.class_rows[considered], classes)
    return np.array(
        [
            best_threshold(scores[start:end], right[start:end], int(num_objects))
            for (start, end), num_objects in zip(
                pairwise(edges), matches.count_objects(), strict=True
            )
        ]
    )


def best_threshold(
    scores: npt.NDArray[np.float64], right: npt.NDArray[np.bool_], num_objects: int
) -> float:
    """Score threshold at which F1 is largest; inf if no detection is right.

    >>> best_threshold(np.array([0.9, 0.5, 0.5]), np.array([True, True, False]), num_objects=2)
    0.5
    """
    if not right.any():
        return math.inf
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    # A threshold keeps all of several equal scores or none: only after the last of them is F1 read.
    last = np.flatnonzero(np.append(ranked[1:] < ranked[:-1], True))
    f1 = 2 * np.cumsum(right[order])[last] / (last + 1 + num_objects)
    return float(ranked[last][f1.argmax()])

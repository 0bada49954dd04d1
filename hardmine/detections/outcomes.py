"""Where a detector fails: which objects it misses, and which of its detections are false."""

from __future__ import annotations

from dataclasses import dataclass

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
    scores = matches.detections.scores
    correct, considered = matches.correct[:, 0], ~matches.ignored[:, 0]
    totals = matches.count_objects()
    confident = np.zeros(len(scores), bool)
    # Detections come by class, then by falling score.
    edges = np.searchsorted(matches.detections.class_rows, np.arange(matches.num_classes + 1))
    for class_row in np.flatnonzero(np.diff(edges)).tolist():
        own = slice(edges[class_row], edges[class_row + 1])
        hits = np.cumsum(correct[own])
        f1 = 2 * hits / (np.cumsum(considered[own]) + totals[class_row]).clip(min=1)
        if f1.max() > 0:
            confident[own] = scores[own] >= scores[own][f1.argmax()]
    return confident

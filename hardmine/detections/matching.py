"""Box overlaps, and COCO's greedy matching within one image and class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Group(NamedTuple):
    """Detections and objects of one image and class.

    Attributes:
        overlaps: (D, G), detections surest first, objects that count first.
        counted: (G,) bool; the others are ignored if found.
        crowd: (G,) bool; may be found more than once.
    """

    overlaps: npt.NDArray[np.float64]
    counted: npt.NDArray[np.bool_]
    crowd: npt.NDArray[np.bool_]


def box_overlaps(
    boxes: npt.NDArray[np.floating],
    others: npt.NDArray[np.floating],
    crowd: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """Intersection over union of all pairs of boxes; over the first box alone for crowds.

    Args:
        boxes: (D, 4) xyxy.
        others: (G, 4) xyxy.
        crowd: (G,) which of ``others`` are group boxes; none if None.

    Returns:
        (D, G) in [0, 1]; 0 where a box is empty.

    >>> box_overlaps(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0], [0, 0, 2, 2.0]]))
    array([[0.33333333, 1.        ]])
    """
    first, second = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    inside = np.prod((high - low).clip(0), axis=2)
    areas = np.prod(first[:, 2:] - first[:, :2], axis=1)
    whole = areas[:, None] + np.prod(second[:, 2:] - second[:, :2], axis=1) - inside
    if crowd is not None:
        whole = np.where(crowd, areas[:, None], whole)
    overlaps: npt.NDArray[np.float64] = np.divide(
        inside, whole, out=np.zeros_like(inside), where=inside > 0
    )
    return overlaps


def match_group(group: Group, thresholds: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Give each detection the object it overlaps most, the surest first: (D, T), -1 for none.

    An object that counts is preferred to any that does not, whatever the overlap; of equal
    overlaps the later object is taken. So does pycocotools.
    """
    overlaps, counted, crowd = group
    least = thresholds - 1e-9  # what equals the threshold but for rounding has reached it
    place = np.full((len(overlaps), len(least)), -1, np.int64)
    free = np.ones((len(counted), len(least)), bool)
    for row in np.flatnonzero(overlaps.max(axis=1) >= least.min()).tolist():
        fits = free & (overlaps[row][:, None] >= least)
        if not counted.all():
            # Only where no counted object fits are the others looked at.
            fits &= counted[:, None] | ~(fits & counted[:, None]).any(axis=0)
        levels = np.flatnonzero(fits.any(axis=0))
        if not len(levels):
            continue
        candidates = np.where(fits[:, levels], overlaps[row][:, None], -1.0)
        best = len(counted) - 1 - candidates[::-1].argmax(axis=0)
        place[row, levels] = best
        free[best, levels] = crowd[best]
    return place

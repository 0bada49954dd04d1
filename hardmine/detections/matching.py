"""Match detections to labelled objects as COCO's evaluator does."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.detections import Detections, load_detections
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class Matches:
    """The object that each detection found, at each of T IoU thresholds, by COCO's rules.

    Detections are sorted by class, then by falling score, then by image id.

    Attributes:
        detections: D detections, without those beyond the limit per image and class.
        source_rows: (D,) int64 position of each in the detections that were given.
        iou_thresholds: (T,) float64, smallest IoU at which an object counts as found.
        found: (D, T) int64 row of the object among the image set's instances; -1 for none.
        ignored: (D, T) bool, neither true nor false positive: the detection found a crowd or an
            object outside the range of areas, or (LVIS) lies where labels are not exhaustive.
        counted: (M,) bool, instances that a detector should find: no crowds, area in range.
        instance_images: (M,) int32 image of each instance.
        instance_classes: (M,) int32 class of each instance.
        num_images: N.
        num_classes: C.
    """

    detections: Detections
    source_rows: npt.NDArray[np.int64]
    iou_thresholds: npt.NDArray[np.float64]
    found: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    instance_images: npt.NDArray[np.int32]
    instance_classes: npt.NDArray[np.int32]
    num_images: int
    num_classes: int

    def count_objects(self, images: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(C,) number of counted objects of each class, on some images (N,) or on all."""
        chosen = self.counted if images is None else self.counted & images[self.instance_images]
        return np.bincount(self.instance_classes[chosen], minlength=self.num_classes)


def match_detections(
    ground_truth: ImageSet,
    detections: Any,
    *,
    iou_thresholds: Sequence[float] = COCO_THRESHOLDS,
    max_detections: int = 100,
    area_range: tuple[float, float] = (0.0, np.inf),
) -> Matches:
    """Match detections to labelled objects as COCO's evaluator does.

    Within each image and class, detections choose in order of falling score. Each takes the free
    object that it overlaps most, if the IoU reaches the threshold. A crowd may be found any number
    of times and counts neither way. In federated sets (LVIS), detections of a class that the image
    was not checked for are left out. Where an image may hold unlabelled objects of the class, a
    detection that finds nothing is ignored.

    Args:
        ground_truth: Images with labels.
        detections: Whatever ``load_detections`` reads.
        iou_thresholds: IoUs at which to match, each on its own.
        max_detections: Limit per image and class; the highest scores stay.
        area_range: Smallest and largest area of an object that counts, in square pixels.
            Detections outside the range that find nothing are ignored. This includes boxes with
            x1 > x2 or y1 > y2, as in pycocotools.

    Raises:
        InputError: If the images have no labels.
    """
    instances = ground_truth.instances
    if instances is None:
        raise InputError(
            "cannot match detections: the image set has no labels; load it with an annotation file"
        )
    given = load_detections(detections, ground_truth)
    order = _rank(given, ground_truth, max_detections)
    kept = given.take(order)
    thresholds = np.asarray(iou_thresholds, np.float64)
    counted = ~instances.crowd
    counted &= (instances.areas >= area_range[0]) & (instances.areas <= area_range[1])
    # Labels are decimals stored as float32. The shortest decimal of a float32 is what was written;
    # an IoU of exactly 0.5 or 0.75 is common among such boxes.
    boxes = instances.boxes.astype(str).astype(np.float64)
    found = np.full((len(kept), len(thresholds)), -1, np.int64)
    # Objects that do not count come last, and take no detection from those that do.
    instance_order = np.lexsort((~counted, instances.class_rows, instances.image_rows))
    for rows, objects in _groups(kept, instances, instance_order, len(ground_truth.class_names)):
        crowd = instances.crowd[objects]
        overlaps = box_overlaps(kept.boxes[rows], boxes[objects], crowd)
        column = _match_group(overlaps, counted[objects], crowd, thresholds)
        found[rows] = np.where(column >= 0, objects[column], -1)
    ignored = (found >= 0) & ~counted[found] if len(counted) else np.zeros(found.shape, bool)
    areas = np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1)
    outside = (areas < area_range[0]) | (areas > area_range[1])
    ignored |= (found < 0) & outside[:, None]
    if ground_truth.not_exhaustive is not None:
        not_exhaustive = ground_truth.not_exhaustive[kept.image_rows, kept.class_rows]
        ignored |= (found < 0) & np.asarray(not_exhaustive).reshape(-1, 1).astype(bool)
    return Matches(
        detections=kept,
        source_rows=order,
        iou_thresholds=thresholds,
        found=found,
        ignored=ignored,
        counted=counted,
        instance_images=instances.image_rows,
        instance_classes=instances.class_rows,
        num_images=len(ground_truth),
        num_classes=len(ground_truth.class_names),
    )


def box_overlaps(
    boxes: npt.NDArray[np.floating],
    others: npt.NDArray[np.floating],
    crowd: npt.NDArray[np.bool_] | None = None,
) -> npt.NDArray[np.float64]:
    """IoU of all pairs of boxes; for a crowd, intersection over the area of the first box alone.

    Args:
        boxes: (D, 4) xyxy.
        others: (G, 4) xyxy.
        crowd: (G,) which of ``others`` are crowds; none if None.

    Returns:
        (D, G) in [0, 1]; 0 where a box is empty.

    >>> box_overlaps(np.array([[0, 0, 2, 2.0]]), np.array([[1, 0, 3, 2.0], [0, 0, 2, 2.0]]))
    array([[0.33333333, 1.        ]])
    """
    first, second = np.asarray(boxes, np.float64), np.asarray(others, np.float64)
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    intersection = np.prod((high - low).clip(0), axis=2)
    areas = np.prod(first[:, 2:] - first[:, :2], axis=1)
    union = areas[:, None] + np.prod(second[:, 2:] - second[:, :2], axis=1) - intersection
    if crowd is not None:
        union = np.where(crowd, areas[:, None], union)
    overlaps: npt.NDArray[np.float64] = np.divide(
        intersection, union, out=np.zeros_like(intersection), where=intersection > 0
    )
    return overlaps


def _match_group(
    overlaps: npt.NDArray[np.float64],
    counted: npt.NDArray[np.bool_],
    crowd: npt.NDArray[np.bool_],
    thresholds: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """Match the detections and objects of one image and class.

    An object that counts is preferred to any that does not, whatever the IoU. Of equal IoUs the
    later object wins. pycocotools does the same.

    Args:
        overlaps: (D, G) IoUs; detections by falling score, objects that count first.
        counted: (G,) objects that count.
        crowd: (G,) objects that may be found more than once.
        thresholds: (T,).

    Returns:
        (D, T) column of the object that each detection found, -1 for none.
    """
    reached = thresholds - 1e-9  # an IoU that misses the threshold by rounding alone reaches it
    found = np.full((len(overlaps), len(reached)), -1, np.int64)
    free = np.ones((len(counted), len(reached)), bool)
    for row in np.flatnonzero(overlaps.max(axis=1) >= reached.min()).tolist():
        fits = free & (overlaps[row][:, None] >= reached)
        if not counted.all():
            # Objects that do not count are an option only where no counted object fits.
            fits &= counted[:, None] | ~(fits & counted[:, None]).any(axis=0)
        levels = np.flatnonzero(fits.any(axis=0))
        if not len(levels):
            continue
        candidates = np.where(fits[:, levels], overlaps[row][:, None], -1.0)
        best = len(counted) - 1 - candidates[::-1].argmax(axis=0)
        found[row, levels] = best
        free[best, levels] = crowd[best]
    return found


def _rank(given: Detections, images: ImageSet, limit: int) -> npt.NDArray[np.int64]:
    """Positions sorted by class, score and image id, without those over the limit."""
    allowed = np.arange(len(given))
    if images.negatives is not None:
        # An image was checked for a class if it has a label of it or is verified not to show it.
        checked = (images.class_counts > 0) + (images.negatives > 0)
        kept = np.asarray(checked[given.image_rows, given.class_rows]).ravel().astype(bool)
        allowed = np.flatnonzero(kept)
    image, label = given.image_rows[allowed], given.class_rows[allowed]
    order = np.lexsort((allowed, -given.scores[allowed], label, image))
    key = image[order] * len(images.class_names) + label[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    nth = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
    allowed = allowed[order[nth < limit]]
    id_rank = np.empty(len(images), np.int64)
    id_rank[np.argsort(images.ids, kind="stable")] = np.arange(len(images))
    keys = (allowed, id_rank[given.image_rows[allowed]])
    return allowed[np.lexsort((*keys, -given.scores[allowed], given.class_rows[allowed]))]


def _groups(
    kept: Detections, instances: Instances, instance_order: npt.NDArray[np.int64], num_classes: int
) -> Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Yield the detections (by score) and instances (counted first) of each image and class."""
    detection_keys = kept.image_rows * num_classes + kept.class_rows
    instance_keys = instances.image_rows.astype(np.int64) * num_classes + instances.class_rows
    detection_order = np.argsort(detection_keys, kind="stable")
    detection_keys, instance_keys = detection_keys[detection_order], instance_keys[instance_order]
    shared = np.intersect1d(detection_keys, instance_keys)
    bounds = [
        np.searchsorted(keys, shared, side).tolist()
        for keys in (detection_keys, instance_keys)
        for side in ("left", "right")
    ]
    for first, last, first_instance, last_instance in zip(*bounds, strict=True):
        yield detection_order[first:last], instance_order[first_instance:last_instance]

"""Match detections to labelled objects as COCO's evaluator does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.detections.detections import Detections, load_detections
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
_ROUNDING = 1e-9  # an IoU that misses a threshold by rounding alone reaches it
_MAX_PAIRS = 1_000_000  # of a detection and an object, at once: 100 MB


@dataclass(frozen=True)
class Matches:
    """The object that each detection found, at each of T IoU thresholds, by COCO's rules.

    Detections are sorted by class, then by falling score, then by image id.

    Attributes:
        detections: D detections, without those beyond the limit per image and class.
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
    iou_thresholds: npt.NDArray[np.float64]
    found: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    instance_images: npt.NDArray[np.int32]
    instance_classes: npt.NDArray[np.int32]
    num_images: int
    num_classes: int

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """(D, T) which detections are true positives."""
        return (self.found >= 0) & ~self.ignored

    @cached_property
    def notable(self) -> npt.NDArray[np.bool_]:
        """(D,) which detections are no false positive at one IoU threshold or more."""
        return np.asarray((self.correct | self.ignored).any(axis=1))

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
    kept = given.take(_rank(given, ground_truth, max_detections))
    thresholds = np.asarray(iou_thresholds, np.float64)
    counted = ~instances.crowd
    counted &= (instances.areas >= area_range[0]) & (instances.areas <= area_range[1])
    found = _match(kept, instances, boxes_as_written(instances.boxes), counted, thresholds)
    ignored = (found >= 0) & ~counted[found] if len(counted) else np.zeros(found.shape, bool)
    areas = np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1)
    outside = (areas < area_range[0]) | (areas > area_range[1])
    ignored |= (found < 0) & outside[:, None]
    ignored |= (found < 0) & may_be_unlabelled(kept, ground_truth)[:, None]
    return Matches(
        detections=kept,
        iou_thresholds=thresholds,
        found=found,
        ignored=ignored,
        counted=counted,
        instance_images=instances.image_rows,
        instance_classes=instances.class_rows,
        num_images=len(ground_truth),
        num_classes=len(ground_truth.class_names),
    )


def of_checked_classes(detections: Detections, images: ImageSet) -> npt.NDArray[np.bool_]:
    """(D,) which detections are of a class that their image was checked for: all but in LVIS.

    An image was checked for a class if it has a label of it or is verified not to show it.
    """
    if images.negatives is None:
        return np.ones(len(detections), bool)
    return _marked((images.class_counts > 0) + (images.negatives > 0), detections)


def may_be_unlabelled(detections: Detections, images: ImageSet) -> npt.NDArray[np.bool_]:
    """(D,) which detections are of a class that their image may show without a label (LVIS)."""
    if images.not_exhaustive is None:
        return np.zeros(len(detections), bool)
    return _marked(images.not_exhaustive, detections)


def _marked(cells: scipy.sparse.csr_matrix, detections: Detections) -> npt.NDArray[np.bool_]:
    """(D,) which detections have a non-zero cell (image, class)."""
    values = cells[detections.image_rows, detections.class_rows]
    return np.asarray(values).ravel().astype(bool)


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
    return _overlaps(first[:, None], second[None], crowd)


def reaches(overlaps: npt.NDArray[np.float64], threshold: float) -> npt.NDArray[np.bool_]:
    """Which IoUs reach a threshold, as ``match_detections`` decides it."""
    return overlaps >= threshold - _ROUNDING


def boxes_as_written(boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """The decimals, of nine places at most, that were written before they became float32.

    An IoU of exactly 0.5 or 0.75 is common among boxes so written; float32 may miss it.
    """
    exact = boxes.astype(np.float64)
    written = exact.copy()
    left = np.ones(boxes.shape, bool)
    for digits in range(10):
        rounded = np.round(exact[left], digits)
        fits = rounded.astype(np.float32) == boxes[left]
        written[left] = np.where(fits, rounded, exact[left])
        left[left] = ~fits
    return written


def _overlaps(
    first: npt.NDArray[np.float64],
    second: npt.NDArray[np.float64],
    crowd: npt.NDArray[np.bool_] | None,
) -> npt.NDArray[np.float64]:
    """As ``box_overlaps``, of boxes (..., 4) that are broadcast against each other."""
    x1, y1, x2, y2 = np.moveaxis(first, -1, 0)
    other_x1, other_y1, other_x2, other_y2 = np.moveaxis(second, -1, 0)
    width = (np.minimum(x2, other_x2) - np.maximum(x1, other_x1)).clip(0)
    height = (np.minimum(y2, other_y2) - np.maximum(y1, other_y1)).clip(0)
    intersection = width * height
    areas = (x2 - x1) * (y2 - y1)
    union = areas + (other_x2 - other_x1) * (other_y2 - other_y1) - intersection
    if crowd is not None:
        union = np.where(crowd, areas, union)
    overlaps: npt.NDArray[np.float64] = np.divide(
        intersection, union, out=np.zeros_like(intersection), where=intersection > 0
    )
    return overlaps


def _match(
    kept: Detections,
    instances: Instances,
    boxes: npt.NDArray[np.float64],
    counted: npt.NDArray[np.bool_],
    thresholds: npt.NDArray[np.float64],
) -> npt.NDArray[np.int64]:
    """(D, T) row of the object that each detection found, -1 for none.

    A detection and an object that overlap no other of their image and class are matched all at
    once. The rest choose one by one. An object that counts is preferred to any that does not,
    whatever the IoU. Of equal IoUs the later object wins. pycocotools does the same.

    Args:
        kept: By falling score within an image and class.
        instances: M labelled objects.
        boxes: (M, 4) theirs.
        counted: (M,) objects that count.
        thresholds: (T,).
    """
    reached = thresholds - _ROUNDING
    found = np.full((len(kept), len(reached)), -1, np.int64)
    rows, objects, overlaps = _overlapping(kept, instances, boxes, reached.min())
    alone = (np.bincount(rows)[rows] == 1) & (np.bincount(objects)[objects] == 1)
    fits = overlaps[alone][:, None] >= reached
    found[rows[alone]] = np.where(fits, objects[alone][:, None], -1)
    rows, objects, overlaps = rows[~alone], objects[~alone], overlaps[~alone]
    free = np.ones((len(boxes), len(reached)), bool)
    starts = np.flatnonzero(np.diff(rows, prepend=-1, append=-1)).tolist()
    for start, end in pairwise(starts):
        options, own = objects[start:end], overlaps[start:end, None]
        fits = free[options] & (own >= reached)
        # Objects that do not count are an option only where no counted object fits.
        counts = counted[options][:, None]
        fits &= counts | ~(fits & counts).any(axis=0)
        levels = np.flatnonzero(fits.any(axis=0))
        candidates = np.where(fits[:, levels], own, -1.0)
        best = options[len(options) - 1 - candidates[::-1].argmax(axis=0)]
        found[rows[start], levels] = best
        free[best, levels] = instances.crowd[best]  # a crowd may be found more than once
    return found


def _overlapping(
    kept: Detections, instances: Instances, boxes: npt.NDArray[np.float64], least: float
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Pairs of one image and class whose IoU is at least ``least``, sorted.

    Returns:
        (P,) rows of detections, (P,) rows of objects, (P,) IoUs.
    """
    classes = 1 + max(kept.class_rows.max(initial=0), instances.class_rows.max(initial=0))
    keys = instances.image_rows.astype(np.int64) * classes + instances.class_rows
    order = np.argsort(keys, kind="stable")
    known, first_of, count_of = np.unique(keys[order], return_index=True, return_counts=True)
    wanted = kept.image_rows.astype(np.int64) * classes + kept.class_rows
    groups = np.searchsorted(known, wanted)
    groups[np.append(known, -1)[groups] != wanted] = len(known)  # no object of the class
    firsts, counts_of_rows = np.append(first_of, 0)[groups], np.append(count_of, 0)[groups]
    ends = np.cumsum(counts_of_rows)
    parts = [(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))]
    # Detections whose pairs fit into memory at once.
    edges = np.searchsorted(ends, np.arange(0, ends.max(initial=0), _MAX_PAIRS), "right")
    for start, end in pairwise([*edges.tolist(), len(kept)]):
        counts = counts_of_rows[start:end]
        rows = np.repeat(np.arange(start, end), counts)
        nth = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        objects = order[np.repeat(firsts[start:end], counts) + nth]
        overlaps = _overlaps(
            np.asarray(kept.boxes[rows], np.float64), boxes[objects], instances.crowd[objects]
        )
        near = overlaps >= least
        parts.append((rows[near], objects[near], overlaps[near]))
    rows, objects, overlaps = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, objects, overlaps


def _rank(given: Detections, images: ImageSet, limit: int) -> npt.NDArray[np.int64]:
    """Positions sorted by class, score and image id, without those over the limit."""
    allowed = np.flatnonzero(of_checked_classes(given, images))
    image, label = given.image_rows[allowed], given.class_rows[allowed]
    keys = image * len(images.class_names) + label
    ranked = np.sort(keys)
    if (ranked[limit:] == ranked[: max(0, len(ranked) - limit)]).any():
        order = np.lexsort((-given.scores[allowed], keys))
        starts = np.flatnonzero(np.diff(ranked, prepend=-1))
        nth = np.arange(len(ranked)) - np.repeat(starts, np.diff(starts, append=len(ranked)))
        allowed = np.sort(allowed[order[nth < limit]])
    id_rank = np.empty(len(images), np.int64)
    id_rank[np.argsort(images.ids, kind="stable")] = np.arange(len(images))
    # Sorting is stable: of equal keys the earlier position comes first.
    return allowed[
        np.lexsort(
            (
                id_rank[given.image_rows[allowed]],
                -given.scores[allowed],
                given.class_rows[allowed],
            )
        )
    ]

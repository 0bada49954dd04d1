"""Which classes a detector confuses, measured on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import (
    box_overlaps,
    boxes_as_written,
    load_detections,
    may_be_unlabelled,
    of_checked_classes,
    reaches,
)
from hardmine.records import ImageSet, names_to_rows

# (class row, row of the class that its objects are mistaken for, share in (0, 1]), sorted.
Pairs = tuple[tuple[int, int, float], ...]
Shares = npt.NDArray[np.float64]

_MIN_SCORE = 0.05  # detections below it name no object
_MIN_IOU = 0.5
_MIN_SHARE = 0.05  # smaller shares are not reported


def measure_confusion(
    images: ImageSet,
    detections: Any,
    class_names: Sequence[str],
    *,
    prior: float = 1.0,
) -> Pairs:
    """Measure which objects are named as another class.

    For each pair of classes: the share of a class's objects, of those that got any name, that were
    named as the other, minus the share of all remaining classes' objects that was. What a detector
    has hardly learnt it calls by the most frequent name, whatever it is; subtracting leaves what is
    specific to the pair.

    An object is named by the detection of the highest score among those that overlap it more than
    any other object.

    As in ``match_detections``, a crowd is no object, but excuses detections of its class that lie
    in it. In federated sets (LVIS) detections of a class that the image was not checked for are
    left out, and so are those on no object of their class where it may stand without a label.

    Args:
        images: N validation images with labels.
        detections: What the detector found on them, in any form that ``load_detections`` reads.
        class_names: C names that rows refer to; other classes of ``images`` are left out.
        prior: Correctly named objects that are added to each class, so that shares over few
            objects are small.
    """
    instances = images.instances
    if instances is None:
        return ()
    found = load_detections(detections, images)
    found = found.take((found.scores >= _MIN_SCORE) & of_checked_classes(found, images))
    found = found.take(np.argsort(found.image_rows, kind="stable"))
    labelled, unlabelled = boxes_as_written(instances.boxes), may_be_unlabelled(found, images)
    edges = np.arange(len(images) + 1)
    starts = np.searchsorted(instances.image_rows, edges)
    bounds = np.searchsorted(found.image_rows, edges)
    count = len(images.class_names)
    named_as = np.zeros((count, count))
    for image in np.unique(found.image_rows).tolist():
        places = np.arange(bounds[image], bounds[image + 1])
        boxes = found.take(places)
        objects = slice(starts[image], starts[image + 1])
        classes, crowd = instances.class_rows[objects], instances.crowd[objects]
        overlaps = box_overlaps(boxes.boxes, labelled[objects], crowd)
        own = reaches(overlaps, _MIN_IOU) & (classes[None, :] == boxes.class_rows[:, None])
        # What lies in a crowd of its class alone is excused, and what may lack a label. From here
        # on there are no crowds.
        counts = own[:, ~crowd].any(axis=1) | ~(own.any(axis=1) | unlabelled[places])
        boxes = boxes.take(counts)
        classes, overlaps = classes[~crowd], overlaps[counts][:, ~crowd]
        if not overlaps.size:
            continue
        closest = overlaps.max(axis=1, keepdims=True)
        names_it = reaches(overlaps, _MIN_IOU) & (overlaps == closest)
        scores = np.where(names_it, boxes.scores[:, None], 0.0)
        named = scores.max(axis=0) > 0
        names = boxes.class_rows[scores.argmax(axis=0)]
        np.add.at(named_as, (classes[named], names[named]), 1)
    rows = names_to_rows(images.class_names, class_names)
    return _pairs(_specific_shares(named_as, prior), rows)


def _specific_shares(named_as: Shares, prior: float) -> Shares:
    """How much more of each class's objects is named as another than of the remaining classes'.

    Args:
        named_as: (C, C) number of objects of the row's class that got the column's name.
        prior: As in ``measure_confusion``.
    """
    named = named_as.sum(axis=1)
    shares: Shares = named_as / np.maximum(named + prior, 1e-12)[:, None]
    np.fill_diagonal(shares, 0)
    known = named > 0
    others = known.sum() - known[:, None] - known[None, :]  # neither the row's nor the column's
    usual = (shares.sum(axis=0) - shares) / np.maximum(others, 1)
    np.fill_diagonal(usual, 1.0)
    return np.asarray(np.maximum(shares - usual, 0))


def _pairs(shares: Shares, rows: npt.NDArray[np.int64]) -> Pairs:
    return tuple(
        sorted(
            (int(rows[row]), int(rows[other]), float(shares[row, other]))
            for row, other in np.argwhere(shares >= _MIN_SHARE).tolist()
            if rows[row] >= 0 and rows[other] >= 0
        )
    )

"""Which classes a detector takes for which, from its results on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hardmine.evaluation.detections import load_detections
from hardmine.evaluation.matching import box_overlaps
from hardmine.records import ImageSet, names_to_rows

Confusion = tuple[tuple[int, int, float], ...]


def measure_confusion(
    images: ImageSet,
    detections: Any,
    class_names: Sequence[str],
    *,
    min_score: float = 0.2,
    min_overlap: float = 0.5,
    least: float = 0.05,
) -> Confusion:
    """Say for each class which share of its wrong detections lies on objects of another.

    A detection is wrong if no object of its class overlaps it enough. It speaks for the class of
    the object that it overlaps most, if any, and weighs its score.

    Args:
        images: N validation images with labels.
        detections: What the detector found on them, in any form that ``load_detections`` reads.
        class_names: C names that rows refer to; classes of ``images`` that are not among them are
            left out.
        min_score: Smallest score that counts.
        min_overlap: Smallest intersection over union.
        least: Smallest share worth telling.

    Returns:
        (class row, row of the class that it is seen on, share in (0, 1]), sorted.
    """
    instances = images.instances
    if instances is None:
        return ()
    found = load_detections(detections, images)
    found = found.take(np.flatnonzero(found.scores >= min_score))
    starts = np.searchsorted(instances.image_rows, np.arange(len(images) + 1))
    place = names_to_rows(images.class_names, class_names)
    count = len(images.class_names)
    wrong, onto = np.zeros(count), np.zeros((count, count))
    for image in np.unique(found.image_rows).tolist():
        mine = found.take(found.image_rows == image)
        here = slice(starts[image], starts[image + 1])
        classes = instances.class_rows[here]
        overlaps = box_overlaps(mine.boxes, instances.boxes[here], instances.crowd[here])
        right = classes[None, :] == mine.class_rows[:, None]
        missed = ~((overlaps >= min_overlap) & right).any(axis=1)
        np.add.at(wrong, mine.class_rows[missed], mine.scores[missed])
        if len(classes):
            seen = missed & (overlaps.max(axis=1) >= min_overlap)
            onto_pairs = (mine.class_rows[seen], classes[overlaps[seen].argmax(axis=1)])
            np.add.at(onto, onto_pairs, mine.scores[seen])
    shares = onto / np.maximum(wrong, 1e-12)[:, None]
    pairs = [
        (int(place[row]), int(place[other]), float(shares[row, other]))
        for row, other in np.argwhere(shares >= least).tolist()
        if place[row] >= 0 and place[other] >= 0
    ]
    return tuple(sorted(pairs))

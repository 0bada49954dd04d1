"""Which classes a detector takes for which, from its results on the validation images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.detections import load_detections
from hardmine.detections.matching import box_overlaps
from hardmine.records import ImageSet, names_to_rows

# (class row, row of the other class, share in (0, 1]), sorted.
Pairs = tuple[tuple[int, int, float], ...]
Shares = npt.NDArray[np.float64]

_HEARD = 0.05  # the surest name of an object counts from this score


@dataclass(frozen=True)
class Confusion:
    """Mistakes between classes, from both sides.

    Attributes:
        seen_on: Share of a class's wrong detections that lie on objects of another.
        taken_for: Share of those of a class's objects that the detector names at all that it takes
            for another, beyond what it takes for that of the other classes' objects. What it has
            hardly learnt it takes for what it has met most, whatever it is: that says nothing.
    """

    seen_on: Pairs = ()
    taken_for: Pairs = ()


def measure_confusion(
    images: ImageSet,
    detections: Any,
    class_names: Sequence[str],
    *,
    min_score: float = 0.2,
    min_overlap: float = 0.5,
    least: float = 0.05,
    prior: float = 1.0,
) -> Confusion:
    """Say for each class on what its wrong detections lie, and for what its objects are taken.

    A detection is wrong if no object of its class overlaps it enough. It speaks for the class of
    the object that it overlaps most, if any, and weighs its score. An object is named by the surest
    detection that overlaps it and no other object more.

    Args:
        images: N validation images with labels.
        detections: What the detector found on them, in any form that ``load_detections`` reads.
        class_names: C names that rows refer to; classes of ``images`` that are not among them are
            left out.
        min_score: Smallest score of a detection that may be wrong.
        min_overlap: Smallest intersection over union.
        least: Smallest share worth telling.
        prior: Objects that each class is taken to have besides its own, rightly named: what few
            objects say is believed the less.
    """
    instances = images.instances
    if instances is None:
        return Confusion()
    found = load_detections(detections, images)
    found = found.take(np.flatnonzero(found.scores >= min(min_score, _HEARD)))
    found = found.take(np.argsort(found.image_rows, kind="stable"))
    edges = np.arange(len(images) + 1)
    starts = np.searchsorted(instances.image_rows, edges)
    bounds = np.searchsorted(found.image_rows, edges)
    count = len(images.class_names)
    wrong = np.zeros(count)
    seen_on, named_as = np.zeros((count, count)), np.zeros((count, count))
    for image in np.unique(found.image_rows).tolist():
        mine = found.take(np.arange(bounds[image], bounds[image + 1]))
        here = slice(starts[image], starts[image + 1])
        classes, crowd = instances.class_rows[here], instances.crowd[here]
        overlaps = box_overlaps(mine.boxes, instances.boxes[here], crowd)
        right = classes[None, :] == mine.class_rows[:, None]
        missed = ~((overlaps >= min_overlap) & right).any(axis=1) & (mine.scores >= min_score)
        np.add.at(wrong, mine.class_rows[missed], mine.scores[missed])
        if len(classes):
            closest = overlaps.max(axis=1)
            seen = missed & (closest >= min_overlap)
            onto_pairs = (mine.class_rows[seen], classes[overlaps[seen].argmax(axis=1)])
            np.add.at(seen_on, onto_pairs, mine.scores[seen])
            tells = (overlaps >= min_overlap) & (overlaps == closest[:, None]) & ~crowd
            sure = np.where(tells & (mine.scores >= _HEARD)[:, None], mine.scores[:, None], 0.0)
            named = sure.max(axis=0) > 0
            names = mine.class_rows[sure.argmax(axis=0)]
            np.add.at(named_as, (classes[named], names[named]), 1)
    place = names_to_rows(images.class_names, class_names)
    return Confusion(
        seen_on=_pairs(seen_on / np.maximum(wrong, 1e-12)[:, None], place, least),
        taken_for=_pairs(_taken_beyond_others(named_as, prior), place, least),
    )


def _taken_beyond_others(named_as: Shares, prior: float) -> Shares:
    """How much more of each class's objects is taken for another than of the other classes'.

    Args:
        named_as: (C, C) objects of the row's class that have the column's name.
        prior: As in ``measure_confusion``.
    """
    named = named_as.sum(axis=1)
    taken: Shares = named_as / np.maximum(named + prior, 1e-12)[:, None]
    np.fill_diagonal(taken, 0)
    told = named > 0
    others = told.sum() - told[:, None] - told[None, :]  # neither the row's class nor the column's
    usual = (taken.sum(axis=0) - taken) / np.maximum(others, 1)
    np.fill_diagonal(usual, 1.0)
    return np.asarray(np.maximum(taken - usual, 0))


def _pairs(shares: Shares, place: npt.NDArray[np.int64], least: float) -> Pairs:
    return tuple(
        sorted(
            (int(place[row]), int(place[other]), float(shares[row, other]))
            for row, other in np.argwhere(shares >= least).tolist()
            if place[row] >= 0 and place[other] >= 0
        )
    )

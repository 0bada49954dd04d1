"""Class gaps: the AP of each class with its labels, its errors and its retrieval by name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import (
    Detections,
    Matches,
    average_precision_from_matches,
    bootstrap_weights,
    load_detections,
    match_detections,
)
from hardmine.errors import InputError
from hardmine.metrics.names import match_names
from hardmine.mining.need import NeedRules, class_need
from hardmine.records import SIZE_EDGES, SIZES, ClassScores, ImageSet
from hardmine.report.object_errors import ClassErrors, class_errors

AREAS = dict(zip(SIZES, ((0.0, SIZE_EDGES[0]), SIZE_EDGES, (SIZE_EDGES[1], 1e10)), strict=True))
_NO_AP = 0.01  # less is none
_LEVEL = 0.9  # of the bootstrap intervals


@dataclass(frozen=True)
class LabelCount:
    """How many labels of a class an image set has.

    Attributes:
        instances: Labelled objects, crowds left out.
        images: Images that show one.
        small: Share of the objects below 32² pixels; NaN without objects.
    """

    instances: int
    images: int
    small: float


@dataclass(frozen=True)
class Retrieval:
    """What a search of the training images for a class's name finds.

    Attributes:
        trust: Share of the best hits that the labels confirm, in [0, 1].
        retrieved: Training images whose score makes it likely that they show the class.
        labelled: How many of those have the label.
        suspects: Images whose label is probably missing.
        confusers: Images that only look like the class.
        draws: The class's instances in an epoch with mining, as a multiple of those without.
    """

    trust: float
    retrieved: int
    labelled: int
    suspects: int = 0
    confusers: int = 0
    draws: float = math.nan


@dataclass(frozen=True)
class ClassGap:
    """One class of the report; NaN and None are unknown.

    Attributes:
        name: As in the data set.
        ap: In [0, 1].
        by_size: AP of small, medium and large objects.
        low: Lower end of the AP's 90 % interval, from a bootstrap over images.
        high: Upper end.
        need: How weak the class is, in [0, 1]; 0 is not weaker than the mean.
        val: Labels in the validation set.
        train: Labels in the training set.
        errors: What happened to its objects.
        retrieval: What a search for its name finds.
        kinds: Kinds of gap, the most likely first; empty where the class is not weak.
        sentence: The kinds in words.
        advice: What would help.
    """

    name: str
    ap: float
    by_size: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    low: float = math.nan
    high: float = math.nan
    need: float = 0.0
    val: LabelCount | None = None
    train: LabelCount | None = None
    errors: ClassErrors | None = None
    retrieval: Retrieval | None = None
    kinds: tuple[str, ...] = ()
    sentence: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Measurement:
    """The scores of C classes and, where they come from detections, intervals and errors.

    Attributes:
        scores: AP of each class.
        intervals: (C, 2) lower and upper end of each AP's interval; NaN where unknown.
        errors: One for each class; empty without detections.
        matches: None without detections.
    """

    scores: ClassScores
    intervals: npt.NDArray[np.float64]
    errors: tuple[ClassErrors, ...] = ()
    matches: Matches | None = None

    @classmethod
    def from_scores(cls, scores: ClassScores) -> Measurement:
        """Scores from a metrics file, without intervals or errors."""
        return cls(scores, np.full((len(scores), 2), np.nan))


def _looks_like(detections: Detections, images: ImageSet) -> str:
    """What wrong boxes may be, as the end of a sentence; empty if it cannot be told."""
    ends = detections.boxes[:, 2:]
    if ends.max() <= 2:
        return "; these are as small as if they were divided by the image's size"
    limits = images.sizes[detections.image_rows, ::-1]
    if ((ends > 1.05 * limits) & (limits > 0)).any(axis=1).mean() > 0.2:
        return "; many of these leave their image, as x1, y1, x2, y2 would"
    return ""


def measure_detections(
    images: ImageSet,
    detections: Any,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Measurement:
    """Evaluate detections by class: COCO's AP, AP by size, intervals and errors.

    Args:
        images: N labelled validation images.
        detections: In COCO's results format.
        draws: Bootstrap samples of the images for the interval; 0 for no interval.
        seed: Seed of the bootstrap.

    Raises:
        InputError: If there are no labels or no detections, or their ids are of another set.
    """
    given = load_detections(detections, images)
    if not len(given):
        raise InputError(
            "there are no detections, so every AP is 0 and no class differs from another; "
            "was the results file written before the detector found anything?"
        )
    matches = match_detections(images, given)
    ap = average_precision_from_matches(matches)
    if np.isnan(ap).all():
        raise InputError(
            "no class has an AP: the validation set has no labelled object that counts"
        )
    reason = _looks_like(given, images)
    if reason and np.nanmean(ap) < _NO_AP:
        raise InputError(
            f"{int(matches.correct[:, 0].sum()):,} of {len(given):,} detections lie on an object "
            "of their class (IoU 0.5), so AP tells no class from another; expected bbox as x, y, "
            f"width, height in pixels of the image file{reason}"
        )
    by_size = np.stack(
        [
            average_precision_from_matches(match_detections(images, given, area_range=area))
            for area in AREAS.values()
        ],
        axis=1,
    )
    intervals = np.full((len(ap), 2), np.nan)
    if draws:
        rng = np.random.default_rng(seed)
        samples = average_precision_from_matches(
            matches, bootstrap_weights(len(images), draws, rng)
        )
        known = ~np.isnan(ap)
        tails = ((1 - _LEVEL) / 2, (1 + _LEVEL) / 2)
        intervals[known] = np.nanquantile(samples[:, known], tails, axis=0).T
    counts = matches.count_objects()
    scores = ClassScores(images.class_names, ap, by_size, counts, "detections")
    return Measurement(scores, intervals, tuple(class_errors(images, matches)), matches)


def class_gaps(
    measurement: Measurement, *, val: ImageSet | None = None, train: ImageSet | None = None
) -> tuple[list[ClassGap], list[str]]:
    """Collect everything known about each class, weakest first.

    Args:
        measurement: From detections or from a metrics file.
        val: Validation images with labels.
        train: Training images with labels.

    Returns:
        A gap for each class, not diagnosed yet, and one line about each name that did not match.
    """
    scores = measurement.scores
    if np.isnan(scores.ap).all():
        raise InputError(f"{scores.source or 'the metrics'}: no class has a known AP")
    labels = val if val is not None else train
    names = labels.class_names if labels is not None else scores.class_names
    need = class_need(scores, names, rules=NeedRules(policy="mean"))
    score_rows = match_names(names, scores.class_names).rows.tolist()
    val_counts, train_counts = (_label_counts(images, names) for images in (val, train))
    gaps = []
    for row, (name, score_row) in enumerate(zip(names, score_rows, strict=True)):
        low, high = measurement.intervals[score_row].tolist() if score_row >= 0 else (math.nan,) * 2
        by_size = need.ap_by_size
        gaps.append(
            ClassGap(
                name=name,
                ap=float(need.ap[row]),
                by_size=_triple(None if by_size is None else by_size[row]),
                low=low,
                high=high,
                need=float(need.need[row]),
                val=val_counts[row],
                train=train_counts[row],
                errors=measurement.errors[score_row]
                if measurement.errors and score_row >= 0
                else None,
            )
        )
    gaps.sort(key=lambda gap: (-gap.need, math.isnan(gap.ap), gap.ap))
    return gaps, need.unmatched


def mean_ap(gaps: list[ClassGap]) -> float:
    """Mean over the classes with a known AP; NaN if there is none."""
    known = [gap.ap for gap in gaps if not math.isnan(gap.ap)]
    return float(np.mean(known)) if known else math.nan


def _triple(values: npt.NDArray[np.float64] | None) -> tuple[float, float, float]:
    if values is None:
        return (math.nan, math.nan, math.nan)
    small, medium, large = values.tolist()
    return (small, medium, large)


def _label_counts(images: ImageSet | None, names: tuple[str, ...]) -> list[LabelCount | None]:
    """Labels of each class in a set; None where the set does not have the class."""
    if images is None or images.instances is None:
        return [None] * len(names)
    instances = images.instances
    not_crowd = ~instances.crowd
    classes = instances.class_rows[not_crowd]
    count = np.bincount(classes, minlength=len(images.class_names))
    small = np.bincount(
        classes, instances.areas[not_crowd] < AREAS["small"][1], minlength=len(images.class_names)
    )
    shown = np.asarray((images.class_counts > 0).sum(axis=0)).ravel()
    rows = match_names(names, images.class_names).rows.tolist()
    return [
        None
        if row < 0
        else LabelCount(
            int(count[row]),
            int(shown[row]),
            float(small[row] / count[row]) if count[row] else math.nan,
        )
        for row in rows
    ]

"""Class gaps: how well each class is found, what it rests on, and what kind of gap that is."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.detections import Matches, load_detections, match_detections
from hardmine.errors import InputError
from hardmine.metrics.names import match_names
from hardmine.mining.need import NeedRules, class_need
from hardmine.records import ClassScores, ImageSet
from hardmine.report.object_errors import ClassErrors, error_types

AREAS = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
LEVEL = 0.9


@dataclass(frozen=True)
class Amount:
    """How much of a class a labelled set holds.

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
    """What the index of the training images says of a class.

    Attributes:
        trust: Share of the class's best hits that the labels confirm, in [0, 1].
        answering: Training images that probably show it, by their scores.
        labelled: How many of those are labelled with it.
        suspects: Images whose label is probably missing.
        confusers: Images that only look like it.
        draws: Expected instances of the class in an epoch after mining over those before.
    """

    trust: float
    answering: int
    labelled: int
    suspects: int = 0
    confusers: int = 0
    draws: float = math.nan


@dataclass(frozen=True)
class ClassGap:
    """One class of the report; NaN and None are unknown.

    Attributes:
        name: As the data set has it.
        ap: In [0, 1].
        by_size: AP of small, medium and large objects.
        low: Lower end of the AP's bootstrap interval over images.
        high: Upper end.
        need: How weak, in [0, 1]; 0 is not weaker than the mean.
        val: Of the validation set.
        train: Of the training set.
        errors: What became of its objects.
        retrieval: What an index says of it.
        kinds: What kind of gap, the likeliest first; empty where the class is not weak.
        sentence: The same in words.
        advice: What would help.
    """

    name: str
    ap: float
    by_size: tuple[float, float, float] = (math.nan, math.nan, math.nan)
    low: float = math.nan
    high: float = math.nan
    need: float = 0.0
    val: Amount | None = None
    train: Amount | None = None
    errors: ClassErrors | None = None
    retrieval: Retrieval | None = None
    kinds: tuple[str, ...] = ()
    sentence: str = ""
    advice: str = ""


@dataclass(frozen=True)
class Measured:
    """Per-class scores and, where detections were given, what is behind them."""

    scores: ClassScores
    intervals: npt.NDArray[np.float64]
    errors: tuple[ClassErrors, ...] = ()
    matches: Matches | None = None


def measure_detections(
    images: ImageSet,
    detections: Any,
    *,
    draws: int = 200,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
) -> Measured:
    """Evaluate detections by class: AP as COCO has it, by size, with an interval, and errors.

    Args:
        images: N labelled validation images.
        detections: In COCO's results format.
        draws: Bootstrap draws of the images for the interval; 0 for none.
        seed: Fixes the draws.
        progress: Told what is being done.

    Raises:
        InputError: If there are no labels or no detections, or their ids are of another set.
    """
    tell = progress or (lambda _: None)
    given = load_detections(detections, images)
    if not len(given):
        raise InputError(
            "there are no detections, so every AP is 0 and no class differs from another; "
            "was the results file written before the detector found anything?"
        )
    tell("matching")
    matches = match_detections(images, given)
    ap = average_precision_from_matches(matches)
    if np.isnan(ap).all():
        raise InputError(
            "no class has an AP: the validation set has no labelled object that counts"
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
        tell("intervals")
        rng = np.random.default_rng(seed)
        drawn = average_precision_from_matches(matches, bootstrap_weights(len(images), draws, rng))
        some = ~np.isnan(ap)
        tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
        intervals[some] = np.nanquantile(drawn[:, some], tails, axis=0).T
    tell("errors")
    counts = np.bincount(
        matches.instance_classes[matches.counted], minlength=len(images.class_names)
    )
    scores = ClassScores(images.class_names, ap, by_size, counts, "detections")
    return Measured(scores, intervals, tuple(error_types(images, matches)), matches)


def class_gaps(
    measured: Measured,
    *,
    val: ImageSet | None = None,
    train: ImageSet | None = None,
    policy: str = "mean",
) -> tuple[list[ClassGap], list[str]]:
    """Lay everything known about each class side by side; the weakest first.

    Args:
        measured: Of ``measure_detections``, or scores alone.
        val: Validation images with labels.
        train: Training images with labels.
        policy: Which classes are weak; see ``class_need``.

    Returns:
        A gap a class, not judged yet, and what did not match, one line each.
    """
    scores = measured.scores
    if np.isnan(scores.ap).all():
        raise InputError(f"{scores.source or 'the metrics'}: no class has a known AP")
    labels = val if val is not None else train
    names = labels.class_names if labels is not None else scores.class_names
    need = class_need(scores, names, rules=NeedRules(policy=policy))
    place = match_names(names, scores.class_names).rows
    amounts = [_amounts(one, names) for one in (val, train)]
    gaps = []
    for row, name in enumerate(names):
        at = int(place[row])
        by_size = need.ap_by_size
        gaps.append(
            ClassGap(
                name=name,
                ap=float(need.ap[row]),
                by_size=_triple(None if by_size is None else by_size[row]),
                low=float(measured.intervals[at, 0]) if at >= 0 else math.nan,
                high=float(measured.intervals[at, 1]) if at >= 0 else math.nan,
                need=float(need.need[row]),
                val=amounts[0][row],
                train=amounts[1][row],
                errors=measured.errors[at] if measured.errors and at >= 0 else None,
            )
        )
    gaps.sort(key=lambda gap: (-gap.need, math.isnan(gap.ap), gap.ap))
    return gaps, need.unmatched


def scores_alone(scores: ClassScores) -> Measured:
    """What a metrics file tells: no interval, no errors."""
    return Measured(scores, np.full((len(scores), 2), np.nan))


def mean_ap(gaps: list[ClassGap]) -> float:
    """Mean over the classes that have one."""
    known = [gap.ap for gap in gaps if not math.isnan(gap.ap)]
    return float(np.mean(known)) if known else math.nan


def _triple(values: npt.NDArray[np.float64] | None) -> tuple[float, float, float]:
    if values is None:
        return (math.nan, math.nan, math.nan)
    small, medium, large = values.tolist()
    return (small, medium, large)


def _amounts(images: ImageSet | None, names: tuple[str, ...]) -> list[Amount | None]:
    """How much of each class a set holds; None where the set does not know the class."""
    if images is None or images.instances is None:
        return [None] * len(names)
    instances = images.instances
    single = ~instances.crowd
    classes = instances.class_rows[single]
    count = np.bincount(classes, minlength=len(images.class_names))
    small = np.bincount(
        classes, instances.areas[single] < AREAS["small"][1], minlength=len(images.class_names)
    )
    shown = np.asarray((images.class_counts > 0).sum(axis=0)).ravel()
    rows = match_names(names, images.class_names).rows.tolist()
    return [
        None
        if row < 0
        else Amount(
            int(count[row]),
            int(shown[row]),
            float(small[row] / count[row]) if count[row] else math.nan,
        )
        for row in rows
    ]

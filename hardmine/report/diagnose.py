"""Diagnose each weak class: what kind of gap it has, and what would help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hardmine.detections import Slice
from hardmine.report.gaps import ClassGap, mean_ap
from hardmine.report.object_errors import ClassErrors
from hardmine.report.units import count, percent

KINDS = {
    "noise": "too few to tell",
    "few": "few examples",
    "small": "small objects",
    "confused": "confused",
    "labels": "labels missing",
    "contexts": "hard context",
    "misplaced": "inexact boxes",
    "background": "background",
    "missed": "missed",
}

# When a number makes a kind of gap. Chosen by reading reports of real detectors; shares in [0, 1].
_MIN_OBJECTS = 10  # validation objects; fewer cannot show whether a class is weak
_FEW = 0.25  # of the median class's training objects: fewer are few examples
_SMALL = 0.4  # of the objects are small: a class of small objects
_CONFUSED = 0.12  # of the objects are detected as another class
_MIN_CONFUSED = 3  # objects detected as the same other class
_MISPLACED = 0.25  # of the objects have a box that overlaps too little
_BACKGROUND = 0.4  # of the detections lie on nothing labelled
_MISSED = 0.4  # of the objects have no detection
_SUSPECTS = 0.1  # suspected missing labels, as a share of the labelled images


class Finding(NamedTuple):
    """One finding about a class; ``weight`` ranks it against the others."""

    kind: str
    weight: float
    sentence: str
    advice: str


def diagnose_gaps(
    gaps: Sequence[ClassGap], *, worst_contexts: Mapping[str, Slice] | None = None
) -> list[ClassGap]:
    """Add to each class what kind of gap it has.

    Args:
        gaps: All classes of the report: a class is compared with the others.
        worst_contexts: By class name, the context in which the class loses most AP.
    """
    trained = [gap.train.instances for gap in gaps if gap.train and gap.train.instances]
    others = _Others(mean_ap(list(gaps)), float(np.median(trained)) if trained else math.nan)
    return [_diagnosed(gap, others, (worst_contexts or {}).get(gap.name)) for gap in gaps]


@dataclass(frozen=True)
class _Others:
    """What a class is compared with: the mean AP and the median number of training objects."""

    mean_ap: float
    median_objects: float


def _diagnosed(gap: ClassGap, others: _Others, worst: Slice | None) -> ClassGap:
    if math.isnan(gap.ap):
        sentence, advice = "AP unknown.", "Validate on images that show it."
        if gap.val is not None and gap.val.instances:
            sentence = "AP unknown: the metrics have no value for it."
            advice = "Add its AP to the metrics, or give detections in their place."
        elif gap.val is not None:
            sentence = "AP unknown: no validation image shows it."
        return replace(gap, sentence=sentence, advice=advice)
    if gap.need == 0:
        return replace(gap, sentence="Not weaker than the mean class.")
    findings = sorted(_findings(gap, others, worst), key=lambda one: -one.weight)
    if not findings:
        sentence = "Weak, for no reason that this report measures."
        return replace(gap, sentence=sentence, advice="Look at the images in which it is missed.")
    first, *rest = findings[:2]
    return replace(
        gap,
        kinds=tuple(one.kind for one in findings),
        sentence=" ".join(one.sentence for one in (first, *rest)),
        advice=rest[0].advice if first.kind == "noise" and rest else first.advice,
    )


def _findings(gap: ClassGap, others: _Others, worst: Slice | None) -> Iterator[Finding]:
    """All findings, in no order. A weight is a share in [0, 1]; noise has 2 and comes first."""
    val, train, errors = gap.val, gap.train, gap.errors
    if val is not None and val.instances < _MIN_OBJECTS:
        yield Finding(
            "noise",
            2.0,
            f"Only {count(val.instances, 'object')} in validation: too few to tell.",
            "Label more validation images of it before training for it.",
        )
    elif gap.high >= others.mean_ap:
        yield Finding(
            "noise",
            2.0,
            f"May be no weaker than the mean: the interval reaches {percent(gap.high, 0)} %.",
            "Validate on more images of it.",
        )
    few = _FEW * others.median_objects
    if train is not None and train.instances < few:
        yield Finding(
            "few",
            0.5 + 0.5 * (1 - train.instances / few),
            f"Few examples: {count(train.instances, 'training object')} in "
            f"{count(train.images, 'image')}; the median class has {others.median_objects:,.0f}.",
            f"Collect images that show {gap.name}.",
        )
    if val is not None and val.small >= _SMALL and _is_worse_when_small(gap):
        yield Finding(
            "small",
            val.small,
            _small_objects(gap, val.small),
            f"Collect images with small objects of {gap.name}.",
        )
    if errors is not None:
        yield from _detection_findings(gap.name, errors)
    if worst is not None:
        yield Finding(
            "contexts",
            0.5 + 0.5 * worst.need,
            f"Hard {worst.context}: AP {percent(worst.ap_inside)} % on images that answer this, "
            f"{percent(worst.ap_outside)} % on the rest.",
            f"Collect images of {gap.name} {worst.context}.",
        )
    found = gap.retrieval
    if found is not None and train is not None and train.images:
        share = found.suspects / train.images
        if share >= _SUSPECTS:
            yield Finding(
                "labels",
                min(1.0, 0.5 + share),
                f"Labels probably missing: {count(found.suspects, 'image')} without the label "
                f"look like it; {train.images:,} have the label.",
                f"Check the {count(found.suspects, 'suspected image')} first.",
            )


def _detection_findings(name: str, errors: ClassErrors) -> Iterator[Finding]:
    other, num_confused = errors.confused_with[0] if errors.confused_with else ("", 0)
    if errors.confused >= _CONFUSED and num_confused >= _MIN_CONFUSED:
        yield Finding(
            "confused",
            min(1.0, 2.5 * errors.confused),
            f"Confused: {percent(errors.confused, 0)} % of its objects are detected as another "
            f"class, most often {other} ({num_confused} of {errors.num_objects}).",
            f"Draw {name} at least as often as {other}.",
        )
    if errors.misplaced >= _MISPLACED:
        yield Finding(
            "misplaced",
            errors.misplaced,
            f"Inexact boxes: {percent(errors.misplaced, 0)} % of its objects are detected with "
            "an IoU below 0.5.",
            "Check how tightly its boxes are labelled, and crowded scenes.",
        )
    if errors.background >= _BACKGROUND:
        yield Finding(
            "background",
            0.6 * errors.background,
            f"{percent(errors.background, 0)} % of its detections lie on nothing labelled: "
            "on background, or where labels are missing.",
            "Look at its highest-scored detections without a label.",
        )
    if errors.missed >= _MISSED:
        yield Finding(
            "missed",
            0.5 * errors.missed,
            f"Missed: {percent(errors.missed, 0)} % of its objects have no detection at all.",
            f"Draw the images in which {name} is missed.",
        )


def _is_worse_when_small(gap: ClassGap) -> bool:
    small, *others = gap.by_size
    known = [ap for ap in others if not math.isnan(ap)]
    return math.isnan(small) or not known or small < float(np.mean(known))


def _small_objects(gap: ClassGap, share: float) -> str:
    sentence = f"Small objects: {percent(share, 0)} % are below 32² pixels"
    small, *others = gap.by_size
    if math.isnan(small):
        return f"{sentence}."
    parts = [f"{percent(small)} % on these"] + [
        f"{percent(ap)} % on {size} ones"
        for size, ap in zip(("medium", "large"), others, strict=True)
        if not math.isnan(ap)
    ]
    return f"{sentence}; AP is {', '.join(parts)}."

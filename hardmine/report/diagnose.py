"""What kind of gap a weak class has, in a word and in a sentence, and what would help."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from hardmine.detections.slices import Slice
from hardmine.report.gaps import ClassGap, mean_ap
from hardmine.report.run_summary import percent

KINDS = {
    "noise": "too few to tell",
    "few": "few examples",
    "small": "small objects",
    "confused": "confusable",
    "labels": "labels missing",
    "conditions": "hard conditions",
    "misplaced": "badly placed",
    "background": "background",
    "missed": "not seen",
}


@dataclass(frozen=True)
class Rules:
    """When a number makes a kind of gap; shares lie in [0, 1].

    Attributes:
        least_objects: Fewer validation objects cannot tell whether a class is weak.
        few: Below this share of the median class's training objects, examples are few.
        small: Share of small objects that makes a class one of small objects.
        confused: Share of the objects taken for other classes.
        least_confused: Fewest objects taken for one and the same class.
        misplaced: Share of the objects whose box is badly placed.
        background: Share of the detections on nothing labelled.
        suspects: Suspected missing labels over labelled images.
    """

    least_objects: int = 10
    few: float = 0.25
    small: float = 0.4
    confused: float = 0.12
    least_confused: int = 3
    misplaced: float = 0.25
    background: float = 0.4
    suspects: float = 0.1


class Finding(NamedTuple):
    """One thing the numbers say; ``weight`` ranks it against the others."""

    kind: str
    weight: float
    sentence: str
    advice: str


def judge_gaps(
    gaps: Sequence[ClassGap],
    *,
    slices: Mapping[str, Slice] | None = None,
    rules: Rules | None = None,
) -> list[ClassGap]:
    """Say of each class what kind of gap it has.

    Args:
        gaps: All classes of the report: some rules compare a class with the others.
        slices: By class name the condition under which it is surely worse.
        rules: Where the lines are drawn.
    """
    rules = rules or Rules()
    mean = mean_ap(list(gaps))
    trained = [gap.train.instances for gap in gaps if gap.train and gap.train.instances]
    median = float(np.median(trained)) if trained else math.nan
    return [_judged(gap, mean, median, (slices or {}).get(gap.name), rules) for gap in gaps]


def _judged(
    gap: ClassGap, mean: float, median: float, worse: Slice | None, rules: Rules
) -> ClassGap:
    if math.isnan(gap.ap):
        known = gap.val is not None
        said = "No validation image shows it, so nothing is known." if known else "AP unknown."
        return replace(gap, sentence=said, advice="Validate on images that show it.")
    if gap.need == 0:
        return replace(gap, sentence="Not weaker than the mean class.")
    findings = sorted(_findings(gap, mean, median, worse, rules), key=lambda one: -one.weight)
    if not findings:
        said = "Weak, and nothing measured here says why."
        return replace(gap, sentence=said, advice="Look at the images it is missed in.")
    told = findings[:2]
    return replace(
        gap,
        kinds=tuple(one.kind for one in findings),
        sentence=" ".join(one.sentence for one in told),
        advice=told[-1].advice if told[0].kind == "noise" and len(told) > 1 else told[0].advice,
    )


def _findings(
    gap: ClassGap, mean: float, median: float, worse: Slice | None, rules: Rules
) -> Iterator[Finding]:
    """What the numbers say, in no order. A finding's weight is a share in [0, 1], noise first."""
    val, train, errors = gap.val, gap.train, gap.errors
    if val is not None and val.instances < rules.least_objects:
        yield Finding(
            "noise",
            2.0,
            f"Only {_count(val.instances, 'object')} in validation: too few to tell.",
            "Label more validation images of it before training for it.",
        )
    elif gap.high >= mean:
        yield Finding(
            "noise",
            2.0,
            f"May be no weaker than the mean: the interval reaches {percent(gap.high, 0)} %.",
            "Validate on more images of it.",
        )
    if train is not None and train.instances < rules.few * median:
        yield Finding(
            "few",
            0.5 + 0.5 * (1 - train.instances / (rules.few * median)),
            f"Few examples: {_count(train.instances, 'training object')} in "
            f"{_count(train.images, 'image')}, the median class has {median:,.0f}.",
            f"Collect images that show {gap.name}.",
        )
    if val is not None and val.small >= rules.small and _worse_when_small(gap):
        yield Finding(
            "small",
            val.small,
            _small(gap, val.small),
            f"Collect images with small objects of {gap.name}.",
        )
    name, count = errors.confused_with[0] if errors and errors.confused_with else ("", 0)
    if errors and errors.confused >= rules.confused and count >= rules.least_confused:
        yield Finding(
            "confused",
            min(1.0, 2.5 * errors.confused),
            f"Confusable: {percent(errors.confused, 0)} % of its objects are taken for another "
            f"class, most often {name} ({count} of {errors.num_objects}).",
            f"Draw {gap.name} at least as often as {name}.",
        )
    if errors is not None and errors.misplaced >= rules.misplaced:
        yield Finding(
            "misplaced",
            errors.misplaced,
            f"Badly placed: {percent(errors.misplaced, 0)} % of its objects are seen with a box "
            "that overlaps less than half.",
            "Check how tightly its boxes are labelled, and crowded scenes.",
        )
    if errors is not None and errors.background >= rules.background:
        yield Finding(
            "background",
            0.6 * errors.background,
            f"{percent(errors.background, 0)} % of its detections lie on nothing labelled: "
            "background, or labels that are missing.",
            "Look at its surest detections without a label.",
        )
    if errors is not None and errors.missed >= 0.4:
        yield Finding(
            "missed",
            0.5 * errors.missed,
            f"Not seen: {percent(errors.missed, 0)} % of its objects have no detection at all.",
            f"Draw the images in which {gap.name} is missed.",
        )
    if worse is not None:
        yield Finding(
            "conditions",
            0.5 + 0.5 * worse.need,
            f"Hard {worse.context}: AP {percent(worse.ap_inside)} % on images that answer this, "
            f"{percent(worse.ap_outside)} % elsewhere.",
            f"Collect images of {gap.name} {worse.context}.",
        )
    found = gap.retrieval
    if found is not None and train is not None and train.images:
        share = found.suspects / train.images
        if share >= rules.suspects:
            yield Finding(
                "labels",
                min(1.0, 0.5 + share),
                f"Labels probably missing: {_count(found.suspects, 'image')} without the label "
                f"look like it, {train.images:,} have it.",
                f"Check the {_count(found.suspects, 'suspected image')} first.",
            )


def _worse_when_small(gap: ClassGap) -> bool:
    small, *others = gap.by_size
    known = [ap for ap in others if not math.isnan(ap)]
    return math.isnan(small) or not known or small < float(np.mean(known))


def _small(gap: ClassGap, share: float) -> str:
    said = f"Small objects: {percent(share, 0)} % are below 32² pixels"
    small, *others = gap.by_size
    if math.isnan(small):
        return f"{said}."
    rest = [
        f"{percent(ap)} % on {size} ones"
        for size, ap in zip(("medium", "large"), others, strict=True)
        if not math.isnan(ap)
    ]
    return f"{said}; AP {', '.join([f'{percent(small)} % there', *rest])}."


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"

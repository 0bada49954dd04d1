"""The page of a report: a table of classes, AP against instances, slices, what mining draws."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hardmine.exports import MinedImage
from hardmine.records import ImageSet
from hardmine.report.diagnose import KINDS
from hardmine.report.gap_output import GapReport
from hardmine.report.gaps import ClassGap
from hardmine.report.page import Mark, Thumbnail, render_page, thumbnail_of
from hardmine.report.units import count, percent, points

_SIDE, _QUALITY = 240, 70  # about 12 kB a picture
_NUM_CLASSES, _NUM_SUSPECTS, _NUM_SLICES = 12, 24, 8  # shown with pictures
_NUM_CHANGES = 12  # classes that gain most draws, and as many that lose most
_NUM_LABELS, _NUM_LABELS_NARROW = 14, 3  # names in the plot, and on a narrow page
KIND_WORDS = {
    "positive": "labelled",
    "hard": "labelled, atypical",
    "confuser": "only looks like it",
    "hit": "unlabelled, worth labelling",
    "suspect": "label probably missing",
}


@dataclass(frozen=True)
class Dot:
    """A class in the plot; x and y in percent of the plot, y downwards.

    Attributes:
        name: The class.
        x: Logarithm of its instances.
        y: AP.
        top: Upper end of the AP's interval.
        bottom: Lower end.
        weak: Whether the class is in need.
        label: Whether the plot shows its name.
        minor: Whether a narrow page hides the name.
        left: Whether the name is left of the dot.
        description: The dot in words.
    """

    name: str
    x: float
    y: float
    top: float
    bottom: float
    weak: bool
    label: bool
    minor: bool
    left: bool
    description: str


@dataclass(frozen=True)
class Scatter:
    """AP against instances.

    Attributes:
        dots: The classes with a known AP and at least one instance.
        xticks: x and text.
        yticks: y and text.
        mean: y of the mean AP.
        split: "training" or "validation": where instances are counted.
    """

    dots: tuple[Dot, ...]
    xticks: tuple[tuple[float, str], ...]
    yticks: tuple[tuple[float, str], ...]
    mean: float
    split: str


@dataclass(frozen=True)
class Change:
    """How mining changes the draws of a class; left and width in percent of the plot.

    Attributes:
        name: The class.
        draws: Its instances in an epoch with mining, as a multiple of those without.
        left: Start of its bar.
        width: Length of its bar.
        weak: Whether the class is in need.
    """

    name: str
    draws: float
    left: float
    width: float
    weak: bool


@dataclass(frozen=True)
class Picture:
    """A mined image, ready for the page."""

    mined: MinedImage
    thumbnail: Thumbnail
    mark: Mark


def gap_page(
    report: GapReport,
    *,
    root: Path | ImageSet | None = None,
    val_root: Path | ImageSet | None = None,
) -> str:
    """Make the page. Its size is bounded: pictures are small, and so is their number.

    Args:
        report: The content.
        root: The training images or their folder; without it no training image is shown.
        val_root: The validation images or their folder, for slices.
    """
    values = gap_values(report, root=root, val_root=val_root)
    return render_page("gap_page.html", **values)


def gap_values(
    report: GapReport,
    *,
    root: Path | ImageSet | None = None,
    val_root: Path | ImageSet | None = None,
) -> dict[str, Any]:
    """The variables of ``gap_page.html``; arguments as of ``gap_page``."""
    pictures: list[tuple[ClassGap, list[Picture]]] = []
    suspects: list[Picture] = []

    def shrink(images: Path | ImageSet, path: str) -> Thumbnail:
        return thumbnail_of(images, path, side=_SIDE, quality=_QUALITY)

    if report.mining is not None and root is not None:

        def picture(mined: MinedImage) -> Picture:
            mark = Mark(mined.box, _tone(mined.kind))
            return Picture(mined, shrink(root, mined.path), mark)

        for gap in report.weak[:_NUM_CLASSES]:
            examples = [one for one in report.mining.examples if one.class_name == gap.name]
            if examples:
                pictures.append((gap, [picture(one) for one in examples]))
        suspects = [picture(one) for one in report.mining.suspects[:_NUM_SUSPECTS]]
    slice_pictures = [
        (one, words, [(path, shrink(val_root, path)) for path in paths])
        for one in report.slices[:_NUM_SLICES]
        for words, paths in (("best", one.paths), ("least", one.opposite))
        if val_root
    ]
    return {
        "report": report,
        "slice_pictures": slice_pictures,
        "plot": scatter(report),
        "changes": changes(report),
        "pictures": pictures,
        "suspects": suspects,
        "kinds": KINDS,
        "kind_words": KIND_WORDS,
        "count": count,
        "percent": percent,
        "points": points,
        "sort_key": sort_key,
        "isnan": math.isnan,
    }


def sort_key(value: float | None) -> str:
    """A number as the table sorts it; empty where unknown."""
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def scatter(report: GapReport) -> Scatter | None:
    """Lay out the classes by instances and AP; None if fewer than two classes have both.

    Instances are those of the training set, or of the validation set without training labels.
    """
    split = "train" if any(gap.train for gap in report.gaps) else "val"
    placed = [
        (gap, labels.instances)
        for gap in report.gaps
        if (labels := getattr(gap, split)) is not None
        and labels.instances > 0
        and not math.isnan(gap.ap)
    ]
    if len(placed) < 2:
        return None
    logs = [math.log10(instances) for _, instances in placed]
    low, high = min(logs), max(logs)
    spread = max(high - low, 0.3)
    ends = [gap.high for gap, _ in placed if not math.isnan(gap.high)]
    # The scale ends at 0.1 or above: the detector may have found nothing at all.
    top = min(1.0, max(0.1, math.ceil(10 * max([gap.ap for gap, _ in placed] + ends)) / 10))

    def x(log: float) -> float:
        return 3 + 94 * (log - low) / spread

    def y(ap: float) -> float:
        return 100 - 100 * ap / top

    dots: list[Dot] = []
    for (gap, instances), log in zip(placed, logs, strict=True):
        known = not math.isnan(gap.low)
        dot = Dot(
            name=gap.name,
            x=x(log),
            y=y(gap.ap),
            top=y(min(gap.high, top)) if known else y(gap.ap),
            bottom=y(gap.low) if known else y(gap.ap),
            weak=gap.need > 0,
            label=False,
            minor=False,
            left=x(log) > 80,
            description=f"{gap.name}: AP {percent(gap.ap)} %, {count(instances, 'instance')}",
        )
        labelled = [one for one in dots if one.label]
        if dot.weak and len(labelled) < _NUM_LABELS and _label_fits(dot, labelled):
            major = [one for one in labelled if not one.minor]
            crowded = len(major) >= _NUM_LABELS_NARROW or not _label_fits(dot, major, stretch=3.0)
            dot = replace(dot, label=True, minor=crowded)
        dots.append(dot)
    decades = range(math.floor(low), math.ceil(high) + 1)
    ticks = [step * 10**decade for decade in decades for step in (1, 3)]
    return Scatter(
        dots=tuple(dots),
        xticks=tuple(
            (x(math.log10(tick)), f"{tick:,}")
            for tick in ticks
            if low <= math.log10(tick) <= low + spread
        ),
        yticks=tuple((y(ap), percent(ap, 0)) for ap in _steps_to(top)),
        mean=y(report.mean_ap),
        split="training" if split == "train" else "validation",
    )


def _steps_to(top: float) -> list[float]:
    """Ticks of a scale up to ``top`` (at least 0.1): whole percents, evenly spaced, at most six."""
    end = round(100 * top)
    step = next(step for step in (2, 5, 10, 20) if end <= 5 * step)
    return [number / 100 for number in range(0, end + 1, step)]


def changes(report: GapReport) -> tuple[Change, ...]:
    """The classes whose draws mining changes most, the largest gain first."""
    known = [
        (gap.retrieval.draws, gap)
        for gap in report.gaps
        if gap.retrieval is not None and not math.isnan(gap.retrieval.draws)
    ]
    known.sort(key=lambda pair: -pair[0])
    if len(known) > 2 * _NUM_CHANGES:
        known = known[:_NUM_CHANGES] + known[-_NUM_CHANGES:]
    values = [1.0, *(draws for draws, _ in known)]
    low = min(values)
    scale = 100 / max(max(values) - low, 1e-9)
    return tuple(
        Change(
            name=gap.name,
            draws=draws,
            left=scale * (min(draws, 1.0) - low),
            width=scale * abs(draws - 1.0),
            weak=gap.need > 0,
        )
        for draws, gap in known
    )


def _label_fits(new: Dot, labelled: list[Dot], *, stretch: float = 1.0) -> bool:
    """Whether a dot's name covers no other name, on a page ``stretch`` times narrower."""
    start, end = _label_extent(new, stretch)
    for dot in labelled:
        first, last = _label_extent(dot, stretch)
        if abs(dot.y - new.y) < 5 and start < last and first < end:
            return False
    return True


def _label_extent(dot: Dot, stretch: float) -> tuple[float, float]:
    """Left and right end of a dot with its name, in percent of the plot's width."""
    width = stretch * (2.0 + 0.7 * min(len(dot.name), 16))
    return (dot.x - width, dot.x) if dot.left else (dot.x, dot.x + width)


def _tone(kind: str) -> str:
    return "doubt" if kind in ("suspect", "confuser") else "match"

"""The page of a report: the classes in a table, AP against instances, what mining would draw."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from hardmine.report.diagnose import KINDS
from hardmine.report.gap_output import GapReport
from hardmine.report.gaps import ClassGap
from hardmine.report.mining_preview import Shown
from hardmine.report.page import Mark, Thumbnail, render_page, thumbnail
from hardmine.report.run_summary import percent, points

_SIDE, _QUALITY = 240, 70  # about 12 kB a picture
_CLASSES, _SUSPECTS, _SLICES = 12, 24, 8
_CHANGES = 12  # classes that gain draws and that lose them
_NAMED, _MAJOR = 14, 3  # names written in the plot, and on a narrow page
WORDS = {
    "positive": "labelled",
    "hard": "labelled, atypical",
    "confuser": "only looks like it",
    "hit": "unlabelled, worth labelling",
    "suspect": "label probably missing",
}


@dataclass(frozen=True)
class Dot:
    """A class in the plot; x and y in percent of it, y downwards.

    Attributes:
        name: The class.
        x: By the logarithm of its instances.
        y: By its AP.
        top: Upper end of the interval.
        bottom: Lower end.
        weak: Whether it is in need.
        label: Whether its name is written.
        minor: Whether a narrow page leaves the name out.
        left: Whether the name stands left of the dot.
        spoken: All of it in words.
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
    spoken: str


@dataclass(frozen=True)
class Scatter:
    """AP against instances.

    Attributes:
        dots: The classes that have both.
        xticks: x and text.
        yticks: y and text.
        mean: y of the mean AP.
        split: "training" or "validation": whose instances.
    """

    dots: tuple[Dot, ...]
    xticks: tuple[tuple[float, str], ...]
    yticks: tuple[tuple[float, str], ...]
    mean: float
    split: str


@dataclass(frozen=True)
class Change:
    """A class whose share of the draws mining changes; left and width in percent of the plot.

    Attributes:
        name: The class.
        draws: Instances drawn after mining over before.
        left: Where its bar begins.
        width: How long it is.
        weak: Whether the class is in need.
    """

    name: str
    draws: float
    left: float
    width: float
    weak: bool


@dataclass(frozen=True)
class Picture:
    """An image of the index with why it is shown."""

    shown: Shown
    thumbnail: Thumbnail
    mark: Mark


def gap_page(
    report: GapReport,
    *,
    root: Path | None = None,
    val_root: Path | None = None,
    progress: Callable[[], None] | None = None,
) -> str:
    """Make the page; pictures are small and their number is bounded, so is its size.

    Args:
        report: What to show.
        root: Folder of the index's images; without it none of them is shown.
        val_root: The same of the validation images, for slices.
        progress: Called after each picture.
    """
    pictures: list[tuple[ClassGap, list[Picture]]] = []
    suspects: list[Picture] = []

    def small(path: Path) -> Thumbnail:
        if progress is not None:
            progress()
        return thumbnail(path, side=_SIDE, quality=_QUALITY)

    if report.mined is not None and root is not None:

        def picture(shown: Shown) -> Picture:
            mark = Mark(shown.box, "", _tone(shown.kind))
            return Picture(shown, small(root / shown.path), mark)

        for gap in report.weak[:_CLASSES]:
            mine = [one for one in report.mined.examples if one.class_name == gap.name]
            if mine:
                pictures.append((gap, [picture(one) for one in mine]))
        suspects = [picture(one) for one in report.mined.suspects[:_SUSPECTS]]
    sliced = [
        (one, [(path, small(val_root / path)) for path in one.paths] if val_root else [])
        for one in report.slices[:_SLICES]
    ]
    return render_page(
        "gap_page.html",
        report=report,
        sliced=sliced,
        plot=scatter(report),
        changes=changes(report),
        pictures=pictures,
        suspects=suspects,
        kinds=KINDS,
        words=WORDS,
        percent=percent,
        points=points,
        sort_key=sort_key,
        isnan=math.isnan,
    )


def sort_key(value: float | None) -> str:
    """A number as the table sorts it; nothing where unknown."""
    return "" if value is None or math.isnan(value) else f"{value:.6g}"


def scatter(report: GapReport) -> Scatter | None:
    """Lay the classes out by instances (of training where known) and AP; None without counts."""
    split = "train" if any(gap.train for gap in report.gaps) else "val"
    placed = [
        (gap, amount.instances)
        for gap in report.gaps
        if (amount := getattr(gap, split)) is not None
        and amount.instances > 0
        and not math.isnan(gap.ap)
    ]
    if len(placed) < 2:
        return None
    logs = [math.log10(count) for _, count in placed]
    low, high = min(logs), max(logs)
    spread = max(high - low, 0.3)
    ends = [gap.high for gap, _ in placed if not math.isnan(gap.high)]
    # At least a tenth high: a detector may have found nothing at all.
    top = min(1.0, max(0.1, math.ceil(10 * max([gap.ap for gap, _ in placed] + ends)) / 10))

    def x(log: float) -> float:
        return 3 + 94 * (log - low) / spread

    def y(ap: float) -> float:
        return 100 - 100 * ap / top

    dots: list[Dot] = []
    for (gap, count), log in zip(placed, logs, strict=True):
        known = not math.isnan(gap.low)
        at = (x(log), y(gap.ap))
        dot = Dot(
            name=gap.name,
            x=at[0],
            y=at[1],
            top=y(min(gap.high, top)) if known else at[1],
            bottom=y(gap.low) if known else at[1],
            weak=gap.need > 0,
            label=False,
            minor=False,
            left=at[0] > 80,
            spoken=f"{gap.name}: AP {percent(gap.ap)} %, {count:,} instances",
        )
        named = sum(one.label for one in dots)
        if dot.weak and named < _NAMED and _free(dot, dots):
            major = [one for one in dots if one.label and not one.minor]
            crowded = len(major) >= _MAJOR or not _free(dot, major, stretch=3.0)
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
    """Whole percents for a scale up to ``top``, at least 0.1: at most six, evenly apart."""
    end = round(100 * top)
    step = next(step for step in (2, 5, 10, 20) if end <= 5 * step)
    return [number / 100 for number in range(0, end + 1, step)]


def changes(report: GapReport) -> tuple[Change, ...]:
    """The classes whose draws mining changes most, the largest gain first."""
    drawn = [
        (gap.retrieval.draws, gap)
        for gap in report.gaps
        if gap.retrieval is not None and not math.isnan(gap.retrieval.draws)
    ]
    drawn.sort(key=lambda pair: -pair[0])
    if len(drawn) > 2 * _CHANGES:
        drawn = drawn[:_CHANGES] + drawn[-_CHANGES:]
    low = min([1.0, *(draws for draws, _ in drawn)])
    scale = 100 / max(max([1.0, *(draws for draws, _ in drawn)]) - low, 1e-9)
    return tuple(
        Change(
            name=gap.name,
            draws=draws,
            left=scale * (min(draws, 1.0) - low),
            width=scale * abs(draws - 1.0),
            weak=gap.need > 0,
        )
        for draws, gap in drawn
    )


def _free(new: Dot, dots: list[Dot], *, stretch: float = 1.0) -> bool:
    """Whether a name there covers no other, on a page so many times narrower than a wide one."""
    start, end = _reach(new, stretch)
    for dot in dots:
        first, last = _reach(dot, stretch)
        if dot.label and abs(dot.y - new.y) < 5 and start < last and first < end:
            return False
    return True


def _reach(dot: Dot, stretch: float) -> tuple[float, float]:
    """Where a dot and its name begin and end, in percent of the plot's width."""
    width = stretch * (2.0 + 0.7 * min(len(dot.name), 16))
    return (dot.x - width, dot.x) if dot.left else (dot.x, dot.x + width)


def _tone(kind: str) -> str:
    return "doubt" if kind in ("suspect", "confuser") else "match"

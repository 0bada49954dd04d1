"""The page of a mining run: AP by round, queries, draws, and whether weak classes improved."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.report.page import render_page
from hardmine.report.run_summary import ClassSummary, RunSummary
from hardmine.report.units import percent, points

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line of a chart; x and y in percent of the plot, y downwards.

    Attributes:
        name: What it shows.
        tone: Its style: "main" or "rest".
        path: As an SVG path; broken where a value is unknown.
        dots: x, y and text of each known value.
        last: Text of the last known value.
    """

    name: str
    tone: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    last: str


@dataclass(frozen=True)
class Chart:
    """Lines over rounds on one scale from zero.

    Attributes:
        title: The question it answers.
        series: The lines.
        ticks: y and text of the scale.
        rounds: x and text of the rounds labelled below the plot.
        description: The chart in words, for screen readers.
    """

    title: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    rounds: tuple[tuple[float, str], ...]
    description: str


def rounds_page(run: RunSummary, *, title: str = "rounds") -> str:
    """Make the page of a run.

    Args:
        run: Its rounds and classes.
        title: Name of the run.
    """
    return render_page("rounds_page.html", **rounds_values(run, title=title))


def rounds_values(run: RunSummary, *, title: str = "rounds") -> dict[str, Any]:
    """The variables of ``rounds_page.html``; arguments as of ``rounds_page``."""
    numbers = [one.number for one in run.rounds]
    boosted = [one for one in run.classes if one.num_boosted]
    rest = [one for one in run.classes if not one.num_boosted]
    ap = chart(
        "Do boosted classes improve faster than the others?",
        {
            f"{len(boosted)} boosted": _mean_ap(boosted, len(numbers)),
            f"{len(rest)} never boosted": _mean_ap(rest, len(numbers)),
        },
        numbers,
    )
    draws = chart(
        "How many draws of an epoch does mining move?",
        {
            "draws moved": np.array([one.moved_share for one in run.rounds]),
            "effective sample size lost": 1 - np.array([one.effective_share for one in run.rounds]),
        },
        numbers,
    )
    gain_boosted, gain_rest = run.gains
    return {
        "title": title,
        "run": run,
        "charts": [one for one in (ap, draws) if one.series],
        "gain_boosted": gain_boosted,
        "gain_rest": gain_rest,
        "sparks": {one.name: spark(one) for one in run.classes},
        "failed": [one for one in run.rounds if one.error],
        "points": points,
        "percent": percent,
    }


def chart(title: str, lines: dict[str, Floats], numbers: Sequence[int]) -> Chart:
    """Lay out lines of shares in [0, 1] over rounds; a line without a known value is left out."""
    known = {name: values for name, values in lines.items() if not np.isnan(values).all()}
    top = _round_up(max((float(np.nanmax(values)) for values in known.values()), default=0.0))
    xs = np.linspace(0, 100, len(numbers)) if len(numbers) > 1 else np.array([50.0])
    series = []
    for place, (name, values) in enumerate(known.items()):
        ys = 100 - 100 * values / top
        dots = tuple(
            (float(x), float(y), f"round {number}: {percent(value)} %")
            for x, y, number, value in zip(xs, ys, numbers, values.tolist(), strict=True)
            if not math.isnan(value)
        )
        last = values[~np.isnan(values)][-1]
        tone = "main" if place == 0 else "rest"
        series.append(Series(name, tone, _path(xs, ys), dots, f"{percent(last)} %"))
    step = max(1, math.ceil(len(numbers) / 8))
    description = "; ".join(
        f"{line.name}: from {line.dots[0][2]} to {line.dots[-1][2]}" for line in series
    )
    return Chart(
        title,
        tuple(series),
        tuple((100 - 100 * share, f"{percent(top * share, 0)} %") for share in (0, 0.5, 1)),
        tuple((float(x), str(number)) for x, number in list(zip(xs, numbers, strict=True))[::step]),
        description,
    )


def spark(summary: ClassSummary) -> str:
    """A class's AP over rounds as an SVG path in a box of 100 × 100."""
    values = summary.ap
    if np.isnan(values).all():
        return ""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    spread = max(high - low, 0.02)
    xs = np.linspace(0, 100, len(values)) if len(values) > 1 else np.array([50.0])
    return _path(xs, 92 - 84 * (values - low) / spread)


def _mean_ap(classes: Sequence[ClassSummary], num_rounds: int) -> Floats:
    """(rounds,) mean over the classes known in each round; NaN where none is."""
    means = np.full(num_rounds, np.nan)
    if classes:
        ap = np.stack([one.ap for one in classes])
        known = ~np.isnan(ap).all(axis=0)
        means[known] = np.nanmean(ap[:, known], axis=0)
    return means


def _path(xs: Floats, ys: Floats) -> str:
    parts, pen = [], "M"
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isnan(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.2f} {y:.2f}")
        pen = "L"
    if len(parts) == 1:  # a single value would be invisible
        parts.append("h0.01")
    return "".join(parts)


def _round_up(top: float) -> float:
    """Top of the scale; its half is a whole percent."""
    for end in (0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        if top <= end:
            return end
    return 1.0

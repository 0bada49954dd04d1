"""The page of a mining run: AP round by round, what was asked and drawn, and whether it helped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from hardmine.report.page import render_page
from hardmine.report.run_summary import ClassLine, History, percent, points

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """One line of a chart; x and y in percent of the plot, y downwards.

    Attributes:
        name: What it shows.
        tone: "main" or "rest".
        path: As an SVG path; a gap where a value is unknown.
        dots: x, y and what to say of each known value.
        last: What to write at its end.
        end: y of its last known value.
    """

    name: str
    tone: str
    path: str
    dots: tuple[tuple[float, float, str], ...]
    last: str
    end: float


@dataclass(frozen=True)
class Chart:
    """Lines over rounds with one scale from zero.

    Attributes:
        title: The question it answers.
        series: The lines.
        ticks: y and text of the scale.
        rounds: x and text of the rounds named below the plot.
        spoken: The same in words, for those who cannot see it.
    """

    title: str
    series: tuple[Series, ...]
    ticks: tuple[tuple[float, str], ...]
    rounds: tuple[tuple[float, str], ...]
    spoken: str


def write_rounds_page(history: History, out: Path, *, title: str = "rounds") -> None:
    """Write the page, one file that needs nothing else."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(rounds_page(history, title=title), encoding="utf-8")


def rounds_page(history: History, *, title: str = "rounds") -> str:
    """Make the page of a run.

    Args:
        history: Of the run.
        title: What the run is called.
    """
    numbers = [line.number for line in history.rounds]
    boosted = [line for line in history.classes if line.boosted]
    rest = [line for line in history.classes if not line.boosted]
    ap = chart(
        "Do boosted classes rise faster than the others?",
        {
            f"{len(boosted)} boosted": _mean_ap(boosted, len(numbers)),
            f"{len(rest)} never boosted": _mean_ap(rest, len(numbers)),
        },
        numbers,
    )
    draws = chart(
        "How much of an epoch does mining move?",
        {
            "draws moved": np.array([line.moved for line in history.rounds]),
            "effective sample size lost": 1 - np.array([line.effective for line in history.rounds]),
        },
        numbers,
    )
    gain, other = history.helped
    return render_page(
        "rounds_page.html",
        title=title,
        history=history,
        charts=[one for one in (ap, draws) if one.series],
        gain=gain,
        other=other,
        sparks={line.name: spark(line) for line in history.classes},
        failed=[line for line in history.rounds if line.error],
        points=points,
        percent=percent,
    )


def chart(title: str, lines: dict[str, Floats], numbers: Sequence[int]) -> Chart:
    """Lay lines of shares in [0, 1] out over rounds; a line without a known value is left out."""
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
        series.append(Series(name, tone, _path(xs, ys), dots, f"{percent(last)} %", dots[-1][1]))
    step = max(1, math.ceil(len(numbers) / 8))
    spoken = "; ".join(
        f"{line.name}: from {line.dots[0][2]} to {line.dots[-1][2]}" for line in series
    )
    return Chart(
        title,
        tuple(series),
        tuple((100 - 100 * share, f"{percent(top * share, 0)} %") for share in (0, 0.5, 1)),
        tuple((float(x), str(number)) for x, number in list(zip(xs, numbers, strict=True))[::step]),
        spoken,
    )


def spark(line: ClassLine) -> str:
    """A class's AP over rounds as an SVG path in a box of 100 × 100."""
    values = line.ap
    if np.isnan(values).all():
        return ""
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    spread = max(high - low, 0.02)
    xs = np.linspace(0, 100, len(values)) if len(values) > 1 else np.array([50.0])
    return _path(xs, 92 - 84 * (values - low) / spread)


def _mean_ap(lines: Sequence[ClassLine], count: int) -> Floats:
    """Mean over the classes known in each round; NaN where none is."""
    means = np.full(count, np.nan)
    if lines:
        ap = np.stack([line.ap for line in lines])
        some = ~np.isnan(ap).all(axis=0)
        means[some] = np.nanmean(ap[:, some], axis=0)
    return means


def _path(xs: Floats, ys: Floats) -> str:
    parts, pen = [], "M"
    for x, y in zip(xs.tolist(), ys.tolist(), strict=True):
        if math.isnan(y):
            pen = "M"
            continue
        parts.append(f"{pen}{x:.2f} {y:.2f}")
        pen = "L"
    if len(parts) == 1:  # a lone value still leaves a mark
        parts.append("h0.01")
    return "".join(parts)


def _round_up(top: float) -> float:
    """The end of a scale whose half is a whole percent."""
    for end in (0.02, 0.04, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0):
        if top <= end:
            return end
    return 1.0

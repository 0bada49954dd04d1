"""The tables of road photos in README and docs, filled from the report of all runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hardmine.mining.weights import WeightRules
from tests.benchmarks.roads.setup import REGIMES
from tests.benchmarks.roads.splits import CONDITIONS, SCENARIOS

Report = dict[str, Any]
_ALL, _BY_DAY, _RARE = "all/frequent/ap50", "timeofday=daytime/frequent/ap50", "all/rare/ap50"
_BY_LABELS = ("class-aware", "inverse-ap", "class-aware-late", "inverse-ap-late")
_MISSING = "–"


@dataclass(frozen=True)
class Group:
    """The reporting splits of one scenario and regime.

    Attributes:
        label: In the first column of its rows.
        scenario: A key of ``SCENARIOS``.
        passes: A key of ``REGIMES``.
        rare: Whether the rare classes are its weak part, and no condition.
    """

    label: str
    scenario: str
    passes: str
    rare: bool = False

    @property
    def condition(self) -> str:
        """The one that is weak; night where none is chosen."""
        return SCENARIOS[self.scenario].condition or "night"

    @property
    def weak(self) -> str:
        """Key of the results of its weak part."""
        attribute, value = CONDITIONS[self.condition]
        return _RARE if self.rare else f"{attribute}={value}/frequent/ap50"

    def strategies(self, report: Report) -> dict[str, Any]:
        """Name -> results of all strategies that were run."""
        strategies: dict[str, Any] = report[self.scenario][self.passes]["reporting"]["strategies"]
        return strategies


# The rows of each table in their order; rows with other labels are of other benchmarks.
EVIDENCE = (
    Group("2,300, 4 % of night (39 % in use), 2 times", "night-is-coming", "plenty"),
    Group("the same, 7 times", "night-is-coming", "usual"),
    Group("the same, 12 times", "night-is-coming", "long"),
    Group("400, 4 % of night, 40 times", "night-is-coming", "scarce"),
    Group("2,800, 1 % of rain (7 % in use), 2 times", "rain-is-coming", "plenty"),
    Group("the same, 7 times", "rain-is-coming", "usual"),
    Group("400, 1 % of rain, 40 times", "rain-is-coming", "scarce"),
    Group("2,800, 1 % of snow (8 % in use), 2 times", "snow-is-coming", "plenty"),
    Group("the same, 7 times", "snow-is-coming", "usual"),
    Group("400, 1 % of snow, 40 times", "snow-is-coming", "scarce"),
    Group("2,800 as they come, 39 % of night, 2 times", "as-it-comes", "plenty"),
    Group("the same, 7 times", "as-it-comes", "usual"),
    Group("the same, 12 times", "as-it-comes", "long"),
    Group("as they come, strategies know half of the labels, 2 times", "few-labels", "plenty"),
    Group("the same, 7 times", "few-labels", "usual"),
    Group("400 such photos, 40 times", "few-labels", "scarce"),
    Group("400 as they come, 40 times", "few-photos", "scarce"),
)
WHEN = (
    Group(
        "night, 4 % of training, 39 % of use: 2,300 road photos, seen 2 times",
        "night-is-coming",
        "plenty",
    ),
    Group("the same, 7 times", "night-is-coming", "usual"),
    Group("the same, 12 times", "night-is-coming", "long"),
    Group("400 such photos, 40 times", "night-is-coming", "scarce"),
    Group(
        "rain, 1 % of training, 7 % of use, but no weaker: 2,800 road photos, 2 times",
        "rain-is-coming",
        "plenty",
    ),
    Group("the same, 7 times", "rain-is-coming", "usual"),
    Group("400 such photos, 40 times", "rain-is-coming", "scarce"),
    Group(
        "snow, 1 % and 8 %, but no weaker: 2,800 road photos, 2 times", "snow-is-coming", "plenty"
    ),
    Group("the same, 7 times", "snow-is-coming", "usual"),
    Group("400 such photos, 40 times", "snow-is-coming", "scarce"),
    Group("rare classes (220 : 1): 2,800 road photos, 2 times", "as-it-comes", "plenty", rare=True),
    Group("the same, 7 times", "as-it-comes", "usual", rare=True),
    Group("the same, 12 times", "as-it-comes", "long", rare=True),
    Group("400 such photos, 40 times", "few-photos", "scarce", rare=True),
    Group("the same, half of the labels known, 2 times", "few-labels", "plenty", rare=True),
    Group("such photos, 7 times", "few-labels", "usual", rare=True),
    Group("400 such photos, 40 times", "few-labels", "scarce", rare=True),
)
README = (
    Group("night, 4 % of training, 39 % in use; road photos, AP50", "night-is-coming", "plenty"),
    Group("the same, photos seen 7 times instead of 2", "night-is-coming", "usual"),
    Group("rare classes; road photos", "as-it-comes", "plenty", rare=True),
    Group("the same, 7 times", "as-it-comes", "usual", rare=True),
)
# In the order of the rows of evidence.md.
_NAMES = {
    "uniform": "uniform",
    "repeat": "repeat factors",
    "class-aware": "class-aware",
    "inverse-ap": "inverse AP",
    "hardmine-labels": "mining by labels alone",
    "hardmine": "mining",
    "hardmine-throughout": "mining, not in the last quarter alone",
    "hardmine-no-look": "mining, without the last quarter by look",
    "hardmine-class-aware": "mining, `class-aware`",
    "hardmine-contexts": "mining, contexts named",
    "hardmine-auto": "mining, contexts found",
    "told": "told",
    "class-aware-late": "class-aware, in the last quarter",
    "hardmine-late": "mining, in the last quarter alone",
    "told-late": "told, in the last quarter",
}


def fill_documents(root: Path, report: Report) -> dict[Path, str]:
    """README and docs with the figures of a report in the tables of road photos.

    Args:
        root: The project.
        report: What ``build_report`` returns.
    """
    fillers: dict[str, Callable[[str], str]] = {
        "README.md": lambda text: _fill_rows(text, README, report, other_way=False),
        "docs/when.md": lambda text: _fill_rows(text, WHEN, report, other_way=True),
        "docs/evidence.md": lambda text: _fill_evidence(text, report),
    }
    return {root / name: fill((root / name).read_text("utf-8")) for name, fill in fillers.items()}


def _fill_evidence(text: str, report: Report) -> str:
    """Put a row for each strategy of each group below the head of the table."""
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("| training photos,")) + 2
    last = lines.index("", first)
    rows = [row for group in EVIDENCE for row in _evidence_rows(group, report)]
    return "\n".join([*lines[:first], *rows, *lines[last:]]) + "\n"


def _evidence_rows(group: Group, report: Report) -> list[str]:
    strategies, rows = group.strategies(report), []
    for name in sorted(strategies, key=list(_NAMES).index):
        results = strategies[name]["results"]
        cells = [_gain(results[part]) for part in (_ALL, _BY_DAY, group.weak, _RARE)]
        if name == "hardmine":
            cells = [f"**{cell}**" for cell in cells]
        drawn = f"{100 * strategies[name]['draws'][group.condition]:.0f} %"
        label = "" if rows else group.label
        rows.append("| " + " | ".join([label, _NAMES[name], drawn, *cells]) + " |")
    return rows


def _fill_rows(text: str, groups: Sequence[Group], report: Report, *, other_way: bool) -> str:
    """Fill the rows that have the labels of the groups, in their order."""
    lines, left = text.splitlines(), list(groups)
    for place, line in enumerate(lines):
        if left and line.startswith(f"| {left[0].label} |"):
            cells = line.strip("| ").split(" | ")
            new = _cells(left.pop(0), report, other_way=other_way)
            bold = [cell.startswith("**") for cell in cells[1:]]
            new = [
                f"**{cell}**" if strong else cell for cell, strong in zip(new, bold, strict=True)
            ]
            lines[place] = "| " + " | ".join([cells[0], *new]) + " |"
    if left:
        raise ValueError(f"no row is called {left[0].label!r}, or not in the order of the others")
    return "\n".join(lines) + "\n"


def _cells(group: Group, report: Report, *, other_way: bool) -> list[str]:
    strategies = group.strategies(report)
    labels = [name for name in _BY_LABELS if name in strategies]
    best = max(labels, key=lambda name: strategies[name]["results"][_ALL]["gain"][0], default="")
    names = [best, "hardmine", "hardmine-class-aware"]
    if other_way:
        seldom = REGIMES[group.passes].passes <= WeightRules().max_passes
        names.append("hardmine-late" if seldom else "hardmine-throughout")
    pairs = [
        ", ".join(_gain(strategies[name]["results"][part]) for part in (group.weak, _ALL))
        if name in strategies
        else _MISSING
        for name in names
    ]
    return [_gain(strategies["uniform"]["results"][group.weak]), *pairs]


def _gain(cell: dict[str, Any]) -> str:
    """A gain over uniform draws with its error, or what uniform draws reach."""
    if "gain" not in cell:
        return f"{cell['mean'][0]:.1f}"
    mean, error = cell["gain"]
    signed = f"{mean:+.1f}"
    return f"{'0.0' if float(signed) == 0 else signed} ± {error:.1f}"

"""The gains of all tables as one plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.roads.setup import REGIMES
from tests.benchmarks.roads.splits import CONDITIONS, SCENARIOS
from tests.benchmarks.roads.strategies import STRATEGIES

_ROW = 0.26  # inches a strategy
_COLOURS = {"all photos": "tab:blue", "the weak condition": "tab:orange"}


def draw_plot(report: dict[str, Any], path: Path) -> None:
    """A panel for each table: gain over uniform draws in AP50 of the frequent classes."""
    panels = []
    for scenario, regimes in report.items():
        for passes, halves in regimes.items():
            for half, entry in halves.items():
                title = (
                    f"{scenario}, each photo seen {REGIMES[passes].passes:g} times, "
                    f"{len(entry['seeds'])} {half} splits"
                )
                if len(entry["strategies"]) > 1:
                    panels.append((title, SCENARIOS[scenario].condition, entry["strategies"]))
    if not panels:
        panels = [("no strategy besides uniform", None, {})]
    heights = [_ROW * max(1, len(strategies) - 1) + 0.35 for _, _, strategies in panels]
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "roads"}):
        figure = Figure(figsize=(8, sum(heights) + 1), layout="constrained")
        axes = figure.subplots(
            len(panels), 1, sharex=True, squeeze=False, gridspec_kw={"height_ratios": heights}
        )[:, 0]
        for axis, (title, condition, strategies) in zip(axes, panels, strict=True):
            _draw_panel(axis, condition, strategies)
            axis.set_title(title, loc="left", fontsize="medium")
        axes[-1].set_xlabel("gain in AP50 over uniform draws, points; bars are standard errors")
        shown = {}
        for axis in axes:
            handles, labels = axis.get_legend_handles_labels()
            shown.update(zip(labels, handles, strict=True))
        figure.legend(shown.values(), shown.keys(), loc="outside upper right", ncols=2)
        figure.savefig(path, metadata={"Date": None})


def _draw_panel(axis: Any, condition: str | None, strategies: dict[str, Any]) -> None:
    groups = {"all photos": "all"}
    if condition is not None:
        groups["the weak condition"] = "=".join(CONDITIONS[condition])
    names = [name for name in strategies if name != "uniform"]
    for offset, (label, group) in zip((-0.12, 0.12), groups.items(), strict=False):
        cells = [strategies[name]["results"].get(f"{group}/frequent/ap50", {}) for name in names]
        pairs = np.array([cell.get("gain", [None, None]) for cell in cells], np.float64)
        pairs = pairs.reshape(-1, 2)
        places = np.arange(len(names)) + offset
        axis.errorbar(
            pairs[:, 0],
            places,
            xerr=pairs[:, 1],
            fmt="o",
            markersize=4,
            color=_COLOURS[label],
            label=label,
        )
    axis.axvline(0, color="grey", linewidth=0.8)
    axis.tick_params(labelbottom=True)  # of a tall figure nobody sees the last axis
    axis.set_yticks(range(len(names)), [STRATEGIES[name].about.split(":")[0] for name in names])
    axis.set_ylim(max(len(names), 1) - 0.5, -0.5)

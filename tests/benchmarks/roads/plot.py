"""The gains of each table as a plot."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from tests.benchmarks.roads.splits import CONDITIONS, SCENARIOS


def draw_plot(report: dict[str, Any], path: Path) -> None:
    """A panel for each table: gain over uniform draws in AP50 of the frequent classes."""
    panels = [
        (f"{scenario}, {passes}, {half}", SCENARIOS[scenario].condition, entry["strategies"])
        for scenario, regimes in report.items()
        for passes, halves in regimes.items()
        for half, entry in halves.items()
        if len(entry["strategies"]) > 1
    ]
    if not panels:
        panels = [("no strategy besides uniform", None, {})]
    figure = Figure(figsize=(6, 1 + 2.4 * len(panels)), layout="constrained")
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for axis, (title, condition, strategies) in zip(axes, panels, strict=True):
        groups = {"all photos": "all"}
        if condition is not None:
            groups[condition] = "=".join(CONDITIONS[condition])
        names = [name for name in strategies if name != "uniform"]
        for offset, (label, group) in enumerate(groups.items()):
            cells = [
                strategies[name]["results"].get(f"{group}/frequent/ap50", {}) for name in names
            ]
            pairs = np.array([cell.get("gain", [None, None]) for cell in cells], np.float64)
            pairs = pairs.reshape(-1, 2)
            places = np.arange(len(names)) + 0.15 * offset
            axis.errorbar(pairs[:, 0], places, xerr=pairs[:, 1], fmt="o", label=label)
        axis.axvline(0, color="grey", linewidth=0.8)
        axis.set_yticks(np.arange(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(title)
        axis.set_xlabel("AP50 over uniform draws, points; bars are standard errors")
        axis.legend(fontsize="small") if names else None
    figure.savefig(path, dpi=120)

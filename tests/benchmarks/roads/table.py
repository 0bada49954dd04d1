"""From runs to tables: differences from uniform paired by split, pooled over splits."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.bench.table import Estimate
from hardmine.records import numbers
from tests.benchmarks.roads.photos import FREQUENT, RARE
from tests.benchmarks.roads.setup import REGIMES, settings_of
from tests.benchmarks.roads.splits import CHOOSING, CONDITIONS, SCENARIOS
from tests.benchmarks.roads.strategies import STRATEGIES

Run = dict[str, Any]
Floats = npt.NDArray[np.float64]
PARTS = {"frequent": FREQUENT, "rare": RARE}
METRICS = ("ap", "ap50")
# Of the splits; defaults are chosen on one and reported on the other.
HALVES = {
    "reporting": "defaults were chosen on other splits",
    "choosing": "defaults were chosen with a look at these splits",
}


def build_report(runs: Sequence[Run]) -> dict[str, Any]:
    """All numbers of the tables as plain values: scenario -> regime -> half of the splits.

    Only seeds that every strategy of a table has run count. Runs of a split on several processors
    count as one, their mean; a gain is the mean over those that also ran uniform draws.
    """
    report: dict[str, Any] = {}
    for scenario, passes, half in itertools.product(SCENARIOS, REGIMES, HALVES):
        key = (scenario, passes, half)
        own = [run for run in runs if (run["scenario"], run["passes"], _half(run)) == key]
        if own:
            regimes = report.setdefault(scenario, {})
            regimes.setdefault(passes, {})[half] = _summarize(own, scenario, passes)
    return report


def _half(run: Run) -> str:
    return "choosing" if run["seed"] in CHOOSING else "reporting"


def _summarize(runs: Sequence[Run], scenario: str, passes: str) -> dict[str, Any]:
    by_key: dict[tuple[str, int], dict[int, Run]] = {}  # -> processor -> run
    for run in runs:
        by_key.setdefault((run["strategy"], run["seed"]), {})[run.get("processor", 0)] = run
    strategies = [name for name in STRATEGIES if any(key[0] == name for key in by_key)]
    first = "uniform" if "uniform" in strategies else strategies[0]
    seeds = sorted(
        seed
        for seed in {run["seed"] for run in runs}
        if all(
            by_key.get((name, seed), {}).keys() & by_key.get((first, seed), {}).keys()
            for name in strategies
        )
    )
    entry: dict[str, Any] = {
        "settings": settings_of(scenario, passes),
        "seeds": seeds,
        "strategies": {},
    }
    if not seeds:
        return entry
    for name in strategies:
        own = [by_key[name, seed] for seed in seeds]
        uniform = [by_key["uniform", seed] for seed in seeds] if "uniform" in strategies else []
        results = {}
        for group in _groups(runs):
            for part, classes in PARTS.items():
                for metric in METRICS:
                    cell = (group, classes, metric)
                    values = np.array([part_means([*one.values()], *cell).mean() for one in own])
                    results[f"{group}/{part}/{metric}"] = found = {
                        "by_seed": values.round(3).tolist(),
                        "mean": _plain(Estimate.of(values)),
                    }
                    if uniform and name != "uniform":
                        gains = [_gain(*pair, *cell) for pair in zip(own, uniform, strict=True)]
                        found["gain"] = _plain(Estimate.of(np.array(gains)))
        all_own = [run for one in own for run in one.values()]
        entry["strategies"][name] = {
            "results": results,
            "runs": len(all_own),
            "draws": _mean_draws(all_own),
            "natural": {
                key: float(np.mean([run["undrawn_draws"][key] for run in all_own]))
                for key in all_own[0]["undrawn_draws"]
            },
            "cpu_seconds": float(np.mean([run["cpu_seconds"] for run in all_own])),
            "mining_seconds": float(np.mean([run["mining_seconds"] for run in all_own])),
        }
    return entry


def _gain(
    own: dict[int, Run], uniform: dict[int, Run], group: str, classes: Sequence[str], metric: str
) -> float:
    """The mean over the processors that ran both: the arithmetic of others is chance."""
    shared = sorted(own.keys() & uniform.keys())
    ours, plain = (
        part_means([one[processor] for processor in shared], group, classes, metric)
        for one in (own, uniform)
    )
    return float((ours - plain).mean())


def part_means(runs: Sequence[Run], group: str, classes: Sequence[str], metric: str) -> Floats:
    """One value a run: the mean over some classes; NaN where a run's photos show none."""
    means = []
    for run in runs:
        rows = [run["class_names"].index(name) for name in classes]
        values = numbers(run["test"][group][metric])[rows] if group in run["test"] else np.array([])
        known = values[~np.isnan(values)]
        means.append(known.mean() if len(known) else np.nan)
    return np.array(means)


def _groups(runs: Sequence[Run]) -> list[str]:
    """Groups of photos that all runs report, in the order of the first."""
    shared = set.intersection(*(set(run["test"]) for run in runs))
    return [group for group in runs[0]["test"] if group in shared]


def _mean_draws(runs: Sequence[Run]) -> dict[str, float]:
    """Mean share of draws over rounds and seeds."""
    keys = runs[0]["draws"][0]
    return {
        key: float(np.mean([draws[key] for run in runs for draws in run["draws"]])) for key in keys
    }


def _plain(estimate: Estimate) -> list[float | None]:
    """Mean and standard error, None where there is none."""
    return [
        None if np.isnan(value) else round(value, 3) for value in (estimate.mean, estimate.error)
    ]


def to_markdown(report: dict[str, Any], *, plot: str = "") -> str:
    """The tables as Markdown, below a plot in the same folder if it is named."""
    text = [
        "# Does mining help on road photos?",
        "",
        "`python -m tests.benchmarks.roads` trains a small detector with a pretrained trunk on "
        "dashcam photos (BDD100K). All strategies of a split continue from the same detector, "
        "warmed up uniformly, and draw equally often. Gains are differences from uniform draws on "
        "the same split, in points of AP50 (COCO), mean ± standard error over splits. Frequent "
        f"classes: {', '.join(FREQUENT)}; rare classes, of few objects: {', '.join(RARE)}.",
    ]
    text += ["", f"![The gains of all tables]({plot})"] if plot else []
    for scenario, regimes in report.items():
        for passes, halves in regimes.items():
            for half, entry in halves.items():
                if entry["strategies"]:
                    text += _markdown_of(scenario, passes, half, entry)
    return "\n".join(text) + "\n"


def _markdown_of(scenario: str, passes: str, half: str, entry: dict[str, Any]) -> list[str]:
    condition, regime = SCENARIOS[scenario].condition, REGIMES[passes]
    num_train = min(SCENARIOS[scenario].num_train, regime.max_train)
    groups = {"all photos": "all", "by day": "timeofday=daytime", "at night": "timeofday=night"}
    if condition is not None:
        attribute, value = CONDITIONS[condition]
        groups = {**groups, condition: f"{attribute}={value}"}
    if condition == "night":
        del groups["night"]
    cells = {name: f"{group}/frequent/ap50" for name, group in groups.items()}
    cells["rare classes"] = "all/rare/ap50"
    shares = list(CONDITIONS)
    header = ["strategy", *cells, *(f"{name}, % of draws" for name in shares), "CPU s", "runs"]
    seeds = entry["seeds"]
    text = [
        "",
        f"## {scenario}, {passes}, {half}: {SCENARIOS[scenario].about}",
        "",
        f"Each of {num_train:,} photos is drawn {regime.passes:g} times on average; "
        f"{len(seeds)} splits ({seeds}); {HALVES[half]}. AP50 of uniform, gains of the others; "
        "AP50 of the frequent classes unless a column says rare.",
        "",
        "| " + " | ".join(header) + " |",
        "|---" + "|---:" * (len(header) - 1) + "|",
    ]
    for name, result in entry["strategies"].items():
        row = [STRATEGIES[name].about]
        for cell in cells.values():
            found = result["results"].get(cell)
            gain = found and found.get("gain")
            row.append(_text(gain or (found["mean"] if found else [None, None]), bool(gain)))
        row += [f"{100 * result['draws'][share]:.1f}" for share in shares]
        row += [f"{result['cpu_seconds']:.0f}", str(result["runs"])]
        text.append("| " + " | ".join(row) + " |")
    return text


def _text(pair: Sequence[float | None], signed: bool) -> str:
    mean, error = (np.nan if value is None else value for value in pair)
    estimate = Estimate(float(mean), float(error))
    return estimate.signed() if signed else str(estimate)


def write_table(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write ``roads.json``, ``roads.md`` and, where matplotlib is installed, ``roads.svg``."""
    folder.mkdir(parents=True, exist_ok=True)
    report = build_report(runs)
    written = [folder / "roads.json", folder / "roads.md"]
    written[0].write_text(json.dumps(report, indent=1) + "\n")
    if find_spec("matplotlib") is not None:
        from tests.benchmarks.roads.plot import draw_plot

        written.append(folder / "roads.svg")
        draw_plot(report, written[-1])
    written[1].write_text(to_markdown(report, plot=written[2].name if written[2:] else ""))
    return written

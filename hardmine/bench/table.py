"""From runs to tables: means over seeds, and differences paired by seed."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.bench.runs import Schedule
from hardmine.bench.scenarios import SCENARIOS
from hardmine.bench.strategies import STRATEGIES
from hardmine.scenes import NAMES

Floats = npt.NDArray[np.float64]
PARTS = ("all", "weak", "rest")


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its standard error, in AP points; NaN error with one seed."""

    mean: float
    error: float

    @classmethod
    def of(cls, values: Floats) -> Estimate:
        """Estimate from one value a seed."""
        count = len(values)
        error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return cls(float(values.mean()), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.error:.1f}"

    def signed(self) -> str:
        """As text with a sign, for a difference."""
        return f"{self.mean:+.1f} ± {self.error:.1f}"


@dataclass(frozen=True)
class StrategyResult:
    """The result of one strategy in one scenario, over seeds.

    Attributes:
        strategy: A key of ``STRATEGIES``.
        seeds: The seeds that all strategies of the scenario have run.
        parts: AP of each of ``PARTS``.
        by_seed: The same of each seed, so that later runs can be paired with these.
        gains: Difference from uniform draws with the same seed.
        over_best: Difference from the label-only baseline that is best on the weak part.
        seconds: Mean time of training, validation and mining.
        mining_seconds: Mean time of mining alone.
    """

    strategy: str
    seeds: tuple[int, ...]
    parts: dict[str, Estimate]
    by_seed: dict[str, list[float]]
    gains: dict[str, Estimate]
    over_best: dict[str, Estimate]
    seconds: float
    mining_seconds: float


def summarize(runs: Sequence[dict[str, Any]], scenario: str) -> tuple[list[StrategyResult], str]:
    """Summarize the runs of one scenario over the seeds that every strategy has run.

    Returns:
        One result a strategy in the order of ``STRATEGIES``, and the baseline that is best on the
        weak part. Empty if no seed was run by all strategies.
    """
    by_key = {(run["strategy"], run["seed"]): run for run in runs if run["scenario"] == scenario}
    strategies = [name for name in STRATEGIES if any(key[0] == name for key in by_key)]
    seeds = sorted(
        seed
        for seed in {key[1] for key in by_key}
        if all((name, seed) in by_key for name in strategies)
    )
    if not seeds:
        return [], ""
    warmup_ap = np.mean(
        [_array(by_key[strategies[0], seed]["warmup_ap"]) for seed in seeds], axis=0
    )
    ap = {
        name: {
            part: np.array(
                [_part_ap(by_key[name, seed], part, warmup_ap, scenario) for seed in seeds]
            )
            for part in PARTS
        }
        for name in strategies
    }
    baselines = [name for name in strategies if STRATEGIES[name].fair_baseline]
    best = max(baselines, key=lambda name: ap[name]["weak"].mean(), default="uniform")
    results = []
    for name in strategies:
        own_runs = [by_key[name, seed] for seed in seeds]
        results.append(
            StrategyResult(
                strategy=name,
                seeds=tuple(seeds),
                parts={part: Estimate.of(ap[name][part]) for part in PARTS},
                by_seed={part: ap[name][part].round(4).tolist() for part in PARTS},
                gains=_difference(ap, name, "uniform"),
                over_best=_difference(ap, name, best),
                seconds=float(np.mean([run["seconds"] for run in own_runs])),
                mining_seconds=float(np.mean([run["mining_seconds"] for run in own_runs])),
            )
        )
    return results, best


def _difference(ap: dict[str, dict[str, Floats]], name: str, other: str) -> dict[str, Estimate]:
    return {part: Estimate.of(ap[name][part] - ap[other][part]) for part in PARTS}


def _part_ap(run: dict[str, Any], part: str, warmup_ap: Floats, scenario: str) -> float:
    """Mean AP in points of all classes, of the weak part or of the rest."""
    spec = SCENARIOS[scenario]
    if part == "all":
        return float(np.nanmean(_array(run["ap"])) * 100)
    if spec.weak_context is not None:
        inside_or_outside = "ap_inside" if part == "weak" else "ap_outside"
        return float(np.nanmean(_array(run[inside_or_outside])) * 100)
    ap = _array(run["ap"])
    if spec.fine_classes:  # they come after the kinds
        chosen = ap[len(NAMES) :] if part == "weak" else ap[: len(NAMES)]
    else:
        ordered = ap[np.argsort(np.nan_to_num(warmup_ap), kind="stable")]
        third = len(ordered) // 3
        chosen = ordered[:third] if part == "weak" else ordered[-third:]
    return float(np.nanmean(chosen) * 100)


def part_names(scenario: str) -> tuple[str, str]:
    """Names of the weak part and of the rest, for people."""
    spec = SCENARIOS[scenario]
    if spec.weak_context is not None:
        return spec.weak_context, "other light"
    if spec.fine_classes:
        return "fine classes", "the others"
    return "weak third", "head third"


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def build_report(
    runs: Sequence[dict[str, Any]], scenarios: Sequence[str], schedule: Schedule
) -> dict[str, Any]:
    """Collect all numbers of the tables, with seeds and settings, as plain values."""
    report: dict[str, Any] = {
        "schedule": asdict(schedule),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "scenarios": {},
    }
    for scenario in scenarios:
        spec, (weak, rest) = SCENARIOS[scenario], part_names(scenario)
        results, best = summarize(runs, scenario)
        report["scenarios"][scenario] = {
            "about": spec.about,
            "data": spec.data_settings(),
            "images": spec.num_train(schedule.sizes[0]),
            "epochs": schedule.epochs * spec.times_epochs,
            "weak": weak,
            "rest": rest,
            "best_baseline": best,
            "results": [
                {"about": STRATEGIES[result.strategy].about, **asdict(result)} for result in results
            ],
        }
    return report


def to_markdown(report: dict[str, Any]) -> str:
    """The tables of a report as Markdown."""
    schedule = report["schedule"]
    train, val, test = schedule["sizes"]
    narrow = schedule["width"] != Schedule.width
    about = f" A detector of width {schedule['width']}" if narrow else report.get("rule", "")
    text = [
        f"# Does mining help?{about}",
        "",
        "`hardmine bench training` trains a small one-stage detector on generated scenes of "
        f"{schedule['side']} × {schedule['side']} pixels: {train:,} training images unless a table "
        f"says otherwise, {val:,} validation images that mining may use, {test:,} test images. "
        "All strategies of a seed continue from the same detector, trained for "
        f"{schedule['warmup_epochs']} epochs by plain shuffling, and get {schedule['epochs']} more "
        f"epochs of {schedule['epoch_length']:,} draws unless a table says otherwise. "
        "AP is COCO's, in points, mean ± standard error over seeds. Gains are differences from "
        "uniform draws with the same seed; their errors are those of the differences. An "
        "asterisk marks the label-only baseline that is "
        "best on the weak part.",
    ]
    for scenario, entry in report["scenarios"].items():
        if not entry["results"]:
            continue
        seeds = len(entry["results"][0]["seeds"])
        weak, rest, best = entry["weak"], entry["rest"], entry["best_baseline"]
        columns = ["strategy", "all", weak, rest]
        columns += [f"gain: {part}" for part in ("all", weak, rest)]
        columns += [f"gain over {STRATEGIES[best].about}: {weak}", "mining, s", "total, s"]
        text += ["", f"## {scenario}: {entry['about']}", ""]
        longer = f", {entry['epochs']} epochs" if entry["epochs"] > schedule["epochs"] else ""
        text += [f"{seeds} seeds, {entry['images']:,} training images{longer}.", ""]
        text += [entry["note"], ""] if "note" in entry else []
        text += ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
        for result in entry["results"]:
            cells = [result["about"] + (" *" if result["strategy"] == best else "")]
            cells += [str(Estimate(**result["parts"][part])) for part in PARTS]
            cells += [Estimate(**result["gains"][part]).signed() for part in PARTS]
            cells += [Estimate(**result["over_best"]["weak"]).signed()]
            cells += [f"{result['mining_seconds']:.1f}", f"{result['seconds']:.0f}"]
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def write_report(report: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``training.json`` and ``training.md`` into a folder."""
    json_file, markdown_file = folder / "training.json", folder / "training.md"
    json_file.write_text(json.dumps(report, indent=1) + "\n")
    markdown_file.write_text(to_markdown(report))
    return json_file, markdown_file

"""From runs to a table: means over seeds, and differences paired by seed."""

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
        """Of one value a seed."""
        count = len(values)
        error = values.std(ddof=1) / np.sqrt(count) if count > 1 else np.nan
        return cls(float(values.mean()), float(error))

    def __str__(self) -> str:
        return f"{self.mean:.1f} ± {self.error:.1f}"

    def signed(self) -> str:
        """With a sign, for a difference."""
        return f"{self.mean:+.1f} ± {self.error:.1f}"


@dataclass(frozen=True)
class Line:
    """An strategy in a scenario.

    Attributes:
        strategy: A key of ``STRATEGIES``.
        seeds: Those that were run.
        parts: For each of ``PARTS`` the AP.
        by_seed: The same of each seed, for pairing with runs of another day.
        gains: The difference from uniform drawing with the same seed.
        over_best: The difference from the label-only baseline that is best on the weak part.
        seconds: Mean seconds of training, validation and mining.
        mining_seconds: Mean seconds of mining alone.
    """

    strategy: str
    seeds: tuple[int, ...]
    parts: dict[str, Estimate]
    by_seed: dict[str, list[float]]
    gains: dict[str, Estimate]
    over_best: dict[str, Estimate]
    seconds: float
    mining_seconds: float


def summarize(runs: Sequence[dict[str, Any]], scenario: str) -> tuple[list[Line], str]:
    """The lines of one scenario in the order of ``STRATEGIES``, and its best baseline on the weak part.

    Only seeds that every strategy has run count.
    """
    mine = {(run["strategy"], run["seed"]): run for run in runs if run["scenario"] == scenario}
    strategies = [strategy for strategy in STRATEGIES if any(key[0] == strategy for key in mine)]
    seeds = sorted(
        seed
        for seed in {key[1] for key in mine}
        if all((strategy, seed) in mine for strategy in strategies)
    )
    if not seeds:
        return [], ""
    fork = np.mean([_array(mine[strategies[0], seed]["fork_ap"]) for seed in seeds], axis=0)
    scores = {
        strategy: {
            part: np.array([_part(mine[strategy, seed], part, fork, scenario) for seed in seeds])
            for part in PARTS
        }
        for strategy in strategies
    }
    baselines = [
        strategy
        for strategy in strategies
        if STRATEGIES[strategy].baseline is not None and STRATEGIES[strategy].fair
    ]
    best = max(baselines, key=lambda strategy: scores[strategy]["weak"].mean(), default="uniform")
    lines = []
    for strategy in strategies:
        gone = [mine[strategy, seed] for seed in seeds]
        lines.append(
            Line(
                strategy=strategy,
                seeds=tuple(seeds),
                parts={part: Estimate.of(scores[strategy][part]) for part in PARTS},
                by_seed={part: scores[strategy][part].round(4).tolist() for part in PARTS},
                gains=_difference(scores, strategy, "uniform"),
                over_best=_difference(scores, strategy, best),
                seconds=float(np.mean([run["seconds"] for run in gone])),
                mining_seconds=float(np.mean([run["mining_seconds"] for run in gone])),
            )
        )
    return lines, best


def _difference(
    scores: dict[str, dict[str, Floats]], strategy: str, other: str
) -> dict[str, Estimate]:
    return {part: Estimate.of(scores[strategy][part] - scores[other][part]) for part in PARTS}


def _part(run: dict[str, Any], part: str, fork: Floats, scenario: str) -> float:
    """AP in points of all classes, of the weak part or of the rest."""
    weakness = SCENARIOS[scenario]
    if part == "all":
        return float(np.nanmean(_array(run["ap"])) * 100)
    if weakness.weak_condition is not None:
        inside = "ap_inside" if part == "weak" else "ap_outside"
        return float(np.nanmean(_array(run[inside])) * 100)
    ap = _array(run["ap"])
    if weakness.fine:
        chosen = ap[len(NAMES) :] if part == "weak" else ap[: len(NAMES)]
    else:
        ordered = ap[np.argsort(np.nan_to_num(fork), kind="stable")]
        third = len(ordered) // 3
        chosen = ordered[:third] if part == "weak" else ordered[-third:]
    return float(np.nanmean(chosen) * 100)


def what_is_weak(scenario: str) -> tuple[str, str]:
    """What the weak part and the rest are, in words."""
    weakness = SCENARIOS[scenario]
    if weakness.weak_condition is not None:
        return weakness.weak_condition, "other light"
    if weakness.fine:
        return "fine classes", "the others"
    return "weak third", "head third"


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def report(
    runs: Sequence[dict[str, Any]], scenarios: Sequence[str], schedule: Any
) -> dict[str, Any]:
    """Everything that the tables say, with seeds and settings, as plain values."""
    content: dict[str, Any] = {
        "schedule": asdict(schedule),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "scenarios": {},
    }
    for scenario in scenarios:
        lines, best = summarize(runs, scenario)
        content["scenarios"][scenario] = {
            "about": SCENARIOS[scenario].about,
            "scenes": SCENARIOS[scenario].scenes(),
            "images": SCENARIOS[scenario].images_of(schedule.sizes[0]),
            "weak": what_is_weak(scenario)[0],
            "rest": what_is_weak(scenario)[1],
            "best_rival": best,
            "lines": [{"about": STRATEGIES[line.strategy].about, **asdict(line)} for line in lines],
        }
    return content


def markdown(content: dict[str, Any]) -> str:
    """The tables of a ``report`` for reading."""
    schedule = content["schedule"]
    train, val, test = schedule["sizes"]
    text = [
        "# Does mining help?",
        "",
        f"`hardmine bench training`: a small one-stage detector ({schedule['side']} pixels) on "
        f"generated scenes, {train:,} images to train on unless a table says otherwise, "
        f"{val:,} that mining may look at, "
        f"{test:,} to judge by. Every strategy of a seed starts from the same detector, trained for "
        f"{schedule['warm_epochs']} epochs by plain shuffling, and gets {schedule['epochs']} more "
        f"epochs of {schedule['draws']:,} draws. AP is COCO's, in points, mean ± standard error "
        "over seeds; gains are differences from uniform draws with the same seed, and so is their "
        "error. "
        "An asterisk marks the label-only baseline that is best on the weak part.",
    ]
    for scenario, part in content["scenarios"].items():
        if not part["lines"]:
            continue
        seeds = len(part["lines"][0]["seeds"])
        weak, rest = part["weak"], part["rest"]
        heads = ["draws", "all", weak, rest]
        heads += [f"gain: {name}" for name in ("all", weak, rest)]
        heads += [f"over {STRATEGIES[part['best_rival']].about}: {weak}", "mining, s", "in all, s"]
        text += ["", f"## {scenario}: {part['about']}", ""]
        text += [f"{seeds} seeds, {part['images']:,} images.", ""]
        text += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
        for line in part["lines"]:
            cells = [line["about"] + (" *" if line["strategy"] == part["best_rival"] else "")]
            cells += [str(Estimate(**line["parts"][name])) for name in PARTS]
            cells += [Estimate(**line["gains"][name]).signed() for name in PARTS]
            cells += [Estimate(**line["over_best"]["weak"]).signed()]
            cells += [f"{line['mining_seconds']:.1f}", f"{line['seconds']:.0f}"]
            text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text) + "\n"


def write_report(content: dict[str, Any], folder: Path) -> tuple[Path, Path]:
    """Write ``training.json`` and ``training.md``."""
    paths = folder / "training.json", folder / "training.md"
    paths[0].write_text(json.dumps(content, indent=1) + "\n")
    paths[1].write_text(markdown(content))
    return paths

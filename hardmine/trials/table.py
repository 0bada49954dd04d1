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

from hardmine.datasets.scenes import NAMES
from hardmine.trials.arms import ARMS
from hardmine.trials.worlds import WEAKNESSES

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
    """An arm in a world.

    Attributes:
        arm: A key of ``ARMS``.
        seeds: Those that were run.
        parts: For each of ``PARTS`` the AP.
        by_seed: The same of each seed, for pairing with runs of another day.
        gains: The difference from uniform drawing with the same seed.
        over_best: The difference from the label-only rival that is best on the weak part.
        seconds: Mean seconds of training, validation and mining.
        mining_seconds: Mean seconds of mining alone.
    """

    arm: str
    seeds: tuple[int, ...]
    parts: dict[str, Estimate]
    by_seed: dict[str, list[float]]
    gains: dict[str, Estimate]
    over_best: dict[str, Estimate]
    seconds: float
    mining_seconds: float


def summarize(runs: Sequence[dict[str, Any]], world: str) -> tuple[list[Line], str]:
    """The lines of one world in the order of ``ARMS``, and its best rival on the weak part.

    Only seeds that every arm has run count.
    """
    mine = {(run["arm"], run["seed"]): run for run in runs if run["world"] == world}
    arms = [arm for arm in ARMS if any(key[0] == arm for key in mine)]
    seeds = sorted(
        seed for seed in {key[1] for key in mine} if all((arm, seed) in mine for arm in arms)
    )
    if not seeds:
        return [], ""
    fork = np.mean([_array(mine[arms[0], seed]["fork_ap"]) for seed in seeds], axis=0)
    scores = {
        arm: {
            part: np.array([_part(mine[arm, seed], part, fork, world) for seed in seeds])
            for part in PARTS
        }
        for arm in arms
    }
    rivals = [arm for arm in arms if ARMS[arm].rival is not None and ARMS[arm].fair]
    best = max(rivals, key=lambda arm: scores[arm]["weak"].mean(), default="uniform")
    lines = []
    for arm in arms:
        gone = [mine[arm, seed] for seed in seeds]
        lines.append(
            Line(
                arm=arm,
                seeds=tuple(seeds),
                parts={part: Estimate.of(scores[arm][part]) for part in PARTS},
                by_seed={part: scores[arm][part].round(4).tolist() for part in PARTS},
                gains=_difference(scores, arm, "uniform"),
                over_best=_difference(scores, arm, best),
                seconds=float(np.mean([run["seconds"] for run in gone])),
                mining_seconds=float(np.mean([run["mining_seconds"] for run in gone])),
            )
        )
    return lines, best


def _difference(scores: dict[str, dict[str, Floats]], arm: str, other: str) -> dict[str, Estimate]:
    return {part: Estimate.of(scores[arm][part] - scores[other][part]) for part in PARTS}


def _part(run: dict[str, Any], part: str, fork: Floats, world: str) -> float:
    """AP in points of all classes, of the weak part or of the rest."""
    weakness = WEAKNESSES[world]
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


def what_is_weak(world: str) -> tuple[str, str]:
    """What the weak part and the rest are, in words."""
    weakness = WEAKNESSES[world]
    if weakness.weak_condition is not None:
        return weakness.weak_condition, "other light"
    if weakness.fine:
        return "fine classes", "the others"
    return "weak third", "head third"


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def report(runs: Sequence[dict[str, Any]], worlds: Sequence[str], schedule: Any) -> dict[str, Any]:
    """Everything that the tables say, with seeds and settings, as plain values."""
    content: dict[str, Any] = {
        "schedule": asdict(schedule),
        "machine": f"{platform.machine()}, torch {torch.__version__}",
        "worlds": {},
    }
    for world in worlds:
        lines, best = summarize(runs, world)
        content["worlds"][world] = {
            "about": WEAKNESSES[world].about,
            "scenes": WEAKNESSES[world].scenes(),
            "images": WEAKNESSES[world].images_of(schedule.sizes[0]),
            "weak": what_is_weak(world)[0],
            "rest": what_is_weak(world)[1],
            "best_rival": best,
            "lines": [{"about": ARMS[line.arm].about, **asdict(line)} for line in lines],
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
        f"{test:,} to judge by. Every arm of a seed starts from the same detector, trained for "
        f"{schedule['warm_epochs']} epochs by plain shuffling, and gets {schedule['epochs']} more "
        f"epochs of {schedule['draws']:,} draws. AP is COCO's, in points, mean ± standard error "
        "over seeds; gains are differences from uniform draws with the same seed, and so is their "
        "error. "
        "An asterisk marks the label-only rival that is best on the weak part.",
    ]
    for world, part in content["worlds"].items():
        if not part["lines"]:
            continue
        seeds = len(part["lines"][0]["seeds"])
        weak, rest = part["weak"], part["rest"]
        heads = ["draws", "all", weak, rest]
        heads += [f"gain: {name}" for name in ("all", weak, rest)]
        heads += [f"over {ARMS[part['best_rival']].about}: {weak}", "mining, s", "in all, s"]
        text += ["", f"## {world}: {part['about']}", ""]
        text += [f"{seeds} seeds, {part['images']:,} images.", ""]
        text += ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
        for line in part["lines"]:
            cells = [line["about"] + (" *" if line["arm"] == part["best_rival"] else "")]
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

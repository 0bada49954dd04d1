"""Command line of the road benchmark."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import torch

from tests.benchmarks.roads.documents import fill_documents
from tests.benchmarks.roads.found import PARTS, write_found
from tests.benchmarks.roads.photos import ROADS, RoadPhotos, require_photos
from tests.benchmarks.roads.retrieval import measure as measure_retrieval
from tests.benchmarks.roads.retrieval import write_report
from tests.benchmarks.roads.runs import read_all, run_once
from tests.benchmarks.roads.setup import REGIMES
from tests.benchmarks.roads.splits import SCENARIOS
from tests.benchmarks.roads.strategies import STRATEGIES
from tests.benchmarks.roads.table import write_table


def main(arguments: list[str] | None = None) -> int:
    """Run, or make the tables."""
    options = _parser().parse_args(arguments)
    results = options.work / "runs.jsonl"
    if options.command == "table":
        files = [Path(name) for name in options.results] or [results]
        runs = [run for run in read_all(files) if run["seed"] in options.seeds]
        if not runs:
            names = ", ".join(map(str, files))
            print(f"no runs of seeds {options.seeds} in {names}; run them first", file=sys.stderr)
            return 1
        for path in write_table(runs, options.out):
            print(path)
        if options.fill:
            report = json.loads((options.out / "roads.json").read_text("utf-8"))
            for path, text in fill_documents(options.fill, report).items():
                path.write_text(text, "utf-8")
        return 0
    torch.set_num_threads(1)
    reason = require_photos(options.photos)
    if reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return 0
    photos = RoadPhotos(options.photos, options.work)
    if options.command == "retrieval":
        for path in write_report(measure_retrieval(photos), options.out):
            print(path)
        return 0
    if options.command == "conditions":
        for path in write_found(photos, options.out, options.parts, repeats=options.repeats):
            print(path)
        return 0
    for seed in options.seeds:
        for strategy in options.strategies:
            started = time.perf_counter()
            ran = run_once(
                photos,
                results,
                scenario=options.scenario,
                passes=options.passes,
                seed=seed,
                strategy=strategy,
            )
            spent = f"{time.perf_counter() - started:.0f} s" if ran else "recorded or not needed"
            print(f"{options.scenario} {options.passes} {seed} {strategy}: {spent}", flush=True)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.roads")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run strategies that are not recorded yet")
    run.add_argument("scenario", choices=SCENARIOS)
    run.add_argument("--passes", choices=REGIMES, default="usual")
    run.add_argument("--strategies", type=_strategies, default=list(STRATEGIES))
    table = commands.add_parser("table", help="make Markdown, JSON and plots of the runs")
    table.add_argument(
        "results", nargs="*", help="files of runs, one a processor; WORK/runs.jsonl by default"
    )
    table.add_argument(
        "--fill", type=Path, help="project whose README and docs get the figures in their tables"
    )
    retrieval = commands.add_parser("retrieval", help="compare clusterings by what texts find")
    conditions = commands.add_parser("conditions", help="is the weak condition found by itself?")
    conditions.add_argument("--repeats", type=int, default=50, help="halves and exchanges each")
    conditions.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    for command in (run, retrieval, conditions):
        command.add_argument("--photos", type=Path, default=ROADS, help="folder of the road photos")
    for command in (table, retrieval, conditions):
        command.add_argument("--out", type=Path, required=True, help="folder of the tables")
    for command in (run, table, retrieval, conditions):
        command.add_argument("--work", type=Path, required=True, help="folder of what is kept")
    for command in (run, table):
        command.add_argument(
            "--seeds", type=parse_seeds, default=list(range(5)), help="5-9, or 0,1"
        )
    return parser


def parse_seeds(text: str) -> list[int]:
    """Seeds of a text such as "5-9" or "0,1"."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds.extend(range(int(first), int(last or first) + 1))
    return seeds


def _strategies(text: str) -> list[str]:
    names = text.split(",")
    for name in names:
        if name not in STRATEGIES:
            known = ", ".join(STRATEGIES)
            raise argparse.ArgumentTypeError(f"unknown strategy {name!r} (known: {known})")
    return names


if __name__ == "__main__":
    sys.exit(main())

"""``hardmine bench``: does mining help, at equal draws, against sampling by labels alone."""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import Progress, TaskID
from rich.table import Table

from hardmine.bench.runs import Schedule, read_runs, run_scenario
from hardmine.bench.scenarios import SCENARIOS, make_scenario
from hardmine.bench.strategies import STRATEGIES
from hardmine.bench.table import report, summarize, what_is_weak, write_report
from hardmine.cli.progress import console, progress_bar
from hardmine.encoders import load_encoder
from hardmine.errors import InputError

QUICK = Schedule((24, 8, 8), draws=16, warm_epochs=1, epochs=2, side=64, width=8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("what", choices=["training"], help="the benchmark to run")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help="kind of weakness, may be repeated (default: all)",
    )
    parser.add_argument(
        "--strategy",
        action="append",
        choices=list(STRATEGIES),
        help="way of drawing, may be repeated",
    )
    counts = sorted({weakness.seeds for weakness in SCENARIOS.values()})
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"seeds of each kind of weakness (default: {' or '.join(map(str, counts))}, "
        "more where one tells little)",
    )
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="processes (default: one a core)"
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("hardmine-bench"),
        help="folder for scenes, indexes and warmed-up detectors (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, help="folder for the runs and the tables (default: that of --work)"
    )
    parser.add_argument(
        "--quick", action="store_true", help="a handful of images: that it runs, not what it gives"
    )


def run(args: argparse.Namespace) -> int:
    """Run what is not on record yet, then print and write the tables."""
    for option in ("seeds", "jobs"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option} must be at least 1, got {value}")
    out = args.out or args.work
    out.mkdir(parents=True, exist_ok=True)
    results = out / "training.jsonl"
    schedule = QUICK if args.quick else Schedule()
    scenarios = args.scenario or list(SCENARIOS)
    _make_worlds(scenarios, args, schedule)
    rounds = [
        (scenario, seed, _arms_of(scenario, args.strategy))
        for scenario in scenarios
        for seed in range(args.seeds or SCENARIOS[scenario].seeds)
    ]
    settings = {"work": args.work, "results": results, "schedule": schedule}
    total = sum(len(strategies) for *_, strategies in rounds)
    with (
        ProcessPoolExecutor(
            args.jobs, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool,
        progress_bar() as bar,
    ):
        task = bar.add_task("training", total=total, note="")
        waiting = {pool.submit(run_scenario, *one, **settings) for one in rounds}
        while waiting:
            done, waiting = wait(waiting, timeout=1, return_when=FIRST_EXCEPTION)
            for one in done:
                one.result()
            there = {
                (run["scenario"], run["seed"], run["strategy"])
                for run in read_runs(results, schedule)
            }
            missing = [
                (w, s, strategy)
                for w, s, strategies in rounds
                for strategy in strategies
                if (w, s, strategy) not in there
            ]
            note = (
                f"next: {missing[0][0]}, {missing[0][2]}, seed {missing[0][1]}" if missing else ""
            )
            bar.update(task, completed=total - len(missing), note=note)
    runs = read_runs(results, schedule)
    for scenario in scenarios:
        show(runs, scenario, Console())
    for path in write_report(report(runs, scenarios, schedule), out):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


def end_with_parent() -> None:
    """Let this worker end where the command is killed, instead of running on unseen."""

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def show(runs: list[dict[str, Any]], scenario: str, screen: Console) -> None:
    """Print the table of one scenario."""
    lines, best = summarize(runs, scenario)
    weak, rest = what_is_weak(scenario)
    table = Table(
        title=f"{scenario}: AP, and gain over uniform draws",
        title_justify="left",
        caption="* the best by labels alone" if best else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("strategy", no_wrap=True)
    for heading in ("all", weak, rest, f"{weak}, gain", f"{rest}, gain"):
        table.add_column(heading, justify="right", min_width=10)
    for line in lines:
        table.add_row(
            line.strategy + (" *" if line.strategy == best else ""),
            *(str(line.parts[part]) for part in ("all", "weak", "rest")),
            *(line.gains[part].signed() for part in ("weak", "rest")),
        )
    screen.print(table)


def _arms_of(scenario: str, wanted: list[str] | None) -> list[str]:
    return wanted or [
        strategy for strategy in STRATEGIES if strategy in SCENARIOS[scenario].strategies
    ]


def _make_worlds(scenarios: list[str], args: argparse.Namespace, schedule: Schedule) -> None:
    encoder = load_encoder("tiny")
    for scenario in scenarios:
        with progress_bar() as bar:
            make_scenario(
                scenario,
                args.work / scenario,
                encoder,
                sizes=schedule.sizes,
                seed=schedule.world_seed,
                whole=any(
                    STRATEGIES[strategy].whole for strategy in _arms_of(scenario, args.strategy)
                ),
                progress=_teller(bar, scenario),
            )


def _teller(bar: Progress, scenario: str) -> Callable[[str, int, int], None]:
    tasks: dict[str, TaskID] = {}

    def tell(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(f"{scenario}: {what}", total=total, note="")
        bar.update(tasks[what], completed=done)

    return tell

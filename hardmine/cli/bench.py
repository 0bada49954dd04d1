"""``hardmine bench``: does mining help, compared with label-only sampling at equal draws?"""

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

from hardmine.bench.runs import Schedule, read_runs, run_strategies
from hardmine.bench.scenarios import SCENARIOS, make_scenario
from hardmine.bench.strategies import STRATEGIES
from hardmine.bench.table import build_report, part_names, summarize, write_report
from hardmine.cli.progress import console, progress_bar
from hardmine.encoders import load_encoder
from hardmine.errors import InputError

QUICK = Schedule((24, 8, 8), epoch_length=16, warmup_epochs=1, epochs=2, side=64, width=8)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("benchmark", choices=["training"], help="the benchmark to run")
    parser.add_argument(
        "--scenario",
        action="append",
        choices=list(SCENARIOS),
        help="data set with one weakness, may be repeated (default: all)",
    )
    parser.add_argument(
        "--strategy",
        action="append",
        choices=list(STRATEGIES),
        help="way of drawing images, may be repeated (default: those of each scenario)",
    )
    counts = sorted({spec.seeds for spec in SCENARIOS.values()})
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"seeds of each scenario (default: {' or '.join(map(str, counts))}, more where the "
        "weak part has few objects)",
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
        "--width",
        type=int,
        default=Schedule.width,
        help="channels of the detector's first stage; half of them take half the time "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="use a handful of images: shows that the benchmark runs, the numbers mean nothing",
    )


def run(args: argparse.Namespace) -> int:
    """Run what is not recorded yet, then print and write the tables."""
    for option in ("seeds", "jobs", "width"):
        value = getattr(args, option)
        if value is not None and value < 1:
            raise InputError(f"--{option} must be at least 1, got {value}")
    out = args.out or args.work
    out.mkdir(parents=True, exist_ok=True)
    results = out / "training.jsonl"
    schedule = QUICK if args.quick else Schedule(width=args.width)
    strategies = {
        scenario: args.strategy or list(SCENARIOS[scenario].strategies)
        for scenario in args.scenario or SCENARIOS
    }
    _make_scenarios(strategies, args.work, schedule)
    jobs = [
        (scenario, seed, strategies[scenario])
        for scenario in strategies
        for seed in range(args.seeds or SCENARIOS[scenario].seeds)
    ]
    _run_jobs(jobs, args.jobs, work=args.work, results=results, schedule=schedule)
    runs = read_runs(results, schedule)
    for scenario in strategies:
        show(runs, scenario, Console())
    for path in write_report(build_report(runs, list(strategies), schedule), out):
        console.print(f"wrote {path}", highlight=False, soft_wrap=True)
    return 0


def _run_jobs(
    jobs: list[tuple[str, int, list[str]]],
    processes: int,
    *,
    work: Path,
    results: Path,
    schedule: Schedule,
) -> None:
    """Run the strategies of each scenario and seed, several jobs at once."""
    keys = [(scenario, seed, name) for scenario, seed, names in jobs for name in names]
    with (
        ProcessPoolExecutor(
            processes, mp_context=get_context("spawn"), initializer=end_with_parent
        ) as pool,
        progress_bar() as bar,
    ):
        task = bar.add_task("training", total=len(keys), note="")
        pending = {
            pool.submit(run_strategies, *job, work=work, results=results, schedule=schedule)
            for job in jobs
        }
        while pending:
            done, pending = wait(pending, timeout=1, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
            recorded = {
                (run["scenario"], run["seed"], run["strategy"])
                for run in read_runs(results, schedule)
            }
            missing = [key for key in keys if key not in recorded]
            note = ""
            if missing:
                scenario, seed, name = missing[0]
                note = f"next: {scenario}, {name}, seed {seed}"
            bar.update(task, completed=len(keys) - len(missing), note=note)


def end_with_parent() -> None:
    """End this worker process when the command is killed, instead of running on unseen."""

    def follow() -> None:
        parent = parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def show(runs: list[dict[str, Any]], scenario: str, screen: Console) -> None:
    """Print the table of one scenario."""
    results, best = summarize(runs, scenario)
    weak, rest = part_names(scenario)
    table = Table(
        title=f"{scenario}: AP, and gain over uniform draws",
        title_justify="left",
        caption="* best label-only baseline" if best else None,
        caption_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("strategy", no_wrap=True)
    for heading in ("all", weak, rest, f"{weak}, gain", f"{rest}, gain"):
        table.add_column(heading, justify="right", min_width=10)
    for result in results:
        table.add_row(
            result.strategy + (" *" if result.strategy == best else ""),
            *(str(result.parts[part]) for part in ("all", "weak", "rest")),
            *(result.gains[part].signed() for part in ("weak", "rest")),
        )
    screen.print(table)


def _make_scenarios(strategies: dict[str, list[str]], work: Path, schedule: Schedule) -> None:
    """Write scenes and indexes before the processes start, which then only read them."""
    encoder = load_encoder("tiny")
    for scenario, names in strategies.items():
        with progress_bar() as bar:
            make_scenario(
                scenario,
                work / scenario,
                encoder,
                sizes=schedule.sizes,
                seed=schedule.scene_seed,
                whole_image=any(STRATEGIES[name].whole_image for name in names),
                progress=_progress_of(bar, scenario),
            )


def _progress_of(bar: Progress, scenario: str) -> Callable[[str, int, int], None]:
    """A callback that shows one line of progress for each thing that is made."""
    tasks: dict[str, TaskID] = {}

    def update(what: str, done: int, total: int) -> None:
        if what not in tasks:
            tasks[what] = bar.add_task(f"{scenario}: {what}", total=total, note="")
        bar.update(tasks[what], completed=done)

    return update

"""``hardmine rounds``: the history of a mining run as a table and a page."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardmine.cli.progress import console as messages
from hardmine.history.rounds import read_rounds
from hardmine.report.run_summary import ClassLine, History, percent, points, read_history


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="what HardMiner(rounds=...) wrote")
    parser.add_argument(
        "--classes", type=int, default=15, help="classes to list, most boosted first (default 15)"
    )
    parser.add_argument("--json", action="store_true", help="all of it as JSON on stdout")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write a page with plots")


def run(args: argparse.Namespace) -> int:
    """Show what a rounds file holds."""
    history = read_history(read_rounds(args.file))
    if args.html is not None:
        from hardmine.report.rounds_page import write_rounds_page

        write_rounds_page(history, args.html, title=args.file.name)
        messages.print(f"wrote {args.html}", highlight=False, soft_wrap=True)
    if args.json:
        print(json.dumps(_plain({"format": 1, **asdict(history)}), allow_nan=False))
    else:
        show(history, Console(), num_classes=args.classes)
    return 0


def show(history: History, console: Console, *, num_classes: int) -> None:
    """Print the rounds, the classes, and whether it helped."""
    console.print(_rounds_table(history))
    for line in history.rounds:
        if line.error:
            console.print(f"[red]round {line.number} failed: {escape(line.error)}[/red]")
    mistaken = history.rounds[-1].mistaken
    if mistaken:
        more = f" and {len(mistaken) - 5} more" if len(mistaken) > 5 else ""
        console.print(
            "Mistaken more than most classes in the last round: "
            f"{escape(', '.join(mistaken[:5]))}{more}."
        )
    console.print()
    console.print(_classes_table(history.classes[:num_classes]))
    if len(history.classes) > num_classes:
        console.print(f"[dim]{len(history.classes) - num_classes} more classes: --classes[/dim]")
    boosted, rest = history.helped
    if not math.isnan(boosted):
        console.print(
            f"\nFrom one round to the next, AP of boosted classes changed by "
            f"[bold]{points(boosted)}[/bold] points, of the others by {points(rest)}."
        )


def _numeric(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def _rounds_table(history: History) -> Table:
    table = Table(title="Rounds", title_justify="left", box=None, pad_edge=False, expand=True)
    _numeric(table, "round", "mAP")
    table.add_column("weak: the weakest", ratio=1, no_wrap=True)
    _numeric(table, "raised", "moved", "ESS", "weak Δ", "rest Δ", "s")
    for line in history.rounds:
        if line.error:
            table.add_row(str(line.number), "–", "[red]failed[/red]")
            continue
        table.add_row(
            str(line.number),
            percent(line.ap),
            escape(f"{len(line.weak)}: {', '.join(line.weak[:5])}"),
            str(line.raised),
            f"{percent(line.moved)} %",
            f"{percent(line.effective, 0)} %",
            points(line.gain_weak),
            points(line.gain_rest),
            f"{line.seconds:.1f}",
        )
    return table


def _classes_table(classes: tuple[ClassLine, ...]) -> Table:
    table = Table(title="Classes", title_justify="left", box=None, pad_edge=False)
    table.add_column("class", max_width=24, no_wrap=True)
    _numeric(table, "first AP", "last AP", "boosted", "Δ boosted", "Δ else", "trust", "drawn")
    for line in classes:
        known = [value for value in line.ap.tolist() if not math.isnan(value)]
        table.add_row(
            escape(line.name),
            percent(known[0]) if known else "–",
            percent(known[-1]) if known else "–",
            str(line.boosted),
            points(line.gain_boosted),
            points(line.gain_plain),
            "–" if math.isnan(line.trust) else f"{line.trust:.2f}",
            "–" if math.isnan(line.draws) else f"{line.draws:.2f} ×",
        )
    return table


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value

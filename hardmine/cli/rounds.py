"""``hardmine rounds``: a mining run as a table and a page."""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardmine.cli.files import write_text
from hardmine.history.rounds import read_rounds
from hardmine.records import plain_values
from hardmine.report.run_summary import ClassSummary, RunSummary, summarize_run
from hardmine.report.units import percent, points

_ROUNDS_LEGEND = (
    "mAP in percent. raised: images drawn more often; moved: share of the draws; ESS: effective "
    "sample size, of the images; weak Δ, rest Δ: change of AP in points until the next round, of "
    "boosted and of other classes; s: seconds."
)
_CLASSES_LEGEND = (
    "AP in percent. boosted: rounds; Δ: change of AP in points after these and after the other "
    "rounds; trust: share of the best hits that labels confirm; missed: how many times as often "
    "validation misses its objects as training shows them; draws: compared with uniform ones."
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("file", type=Path, help="rounds file that HardMiner(rounds=...) wrote")
    parser.add_argument(
        "--classes",
        type=int,
        default=15,
        help="number of classes to list, most often boosted first (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of tables")
    parser.add_argument("--html", type=Path, metavar="PAGE", help="write an HTML page with plots")


def run(args: argparse.Namespace) -> int:
    """Sum up a rounds file; figures on stdout, messages on stderr."""
    summary = summarize_run(read_rounds(args.file))
    if args.html is not None:
        from hardmine.report.rounds_page import rounds_page

        write_text(args.html, rounds_page(summary, title=args.file.name))
    if args.json:
        print(json.dumps(plain_values({"format": 1, **asdict(summary)}), allow_nan=False))
    else:
        show(summary, Console(), num_classes=args.classes)
    return 0


def show(summary: RunSummary, console: Console, *, num_classes: int) -> None:
    """Print the rounds, the classes, and whether boosted classes improved."""
    console.print(_rounds_table(summary))
    console.print(_ROUNDS_LEGEND, style="dim", highlight=False)
    for one in summary.rounds:
        if one.error:
            console.print(f"[red]round {one.number} failed: {escape(one.error)}[/red]")
    for condition in summary.rounds[-1].conditions:
        console.print(f"Weak condition, in the last round: {escape(condition)}.")
    before = ""
    for one in summary.rounds:
        if one.drawn_by != before and one.drawn_by:
            console.print(f"From round {one.number} {one.drawn_by}.")
        before = one.drawn_by
    mistaken = summary.rounds[-1].mistaken
    if mistaken:
        more = f" and {len(mistaken) - 5} more" if len(mistaken) > 5 else ""
        console.print(
            "Mistaken for another class more than most, in the last round: "
            f"{escape(', '.join(mistaken[:5]))}{more}."
        )
    for note in summary.rounds[-1].notes:
        console.print(f"[yellow]{escape(note)}[/yellow]")
    console.print()
    console.print(_classes_table(summary.classes[:num_classes]))
    console.print(_CLASSES_LEGEND, style="dim", highlight=False)
    hidden = len(summary.classes) - num_classes
    if hidden > 0:
        console.print(f"[dim]{hidden} more classes: --classes {len(summary.classes)}[/dim]")
    boosted, rest = summary.gains
    if not math.isnan(boosted):
        console.print(
            f"\nFrom one round to the next, the AP of boosted classes changed by "
            f"[bold]{points(boosted)}[/bold] points on average, and that of the other classes by "
            f"{points(rest)}."
        )


def _numeric(table: Table, *headings: str) -> None:
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)


def _rounds_table(summary: RunSummary) -> Table:
    table = Table(title="Rounds", title_justify="left", box=None, pad_edge=False, expand=True)
    _numeric(table, "round", "mAP")
    table.add_column("weak classes", ratio=1, no_wrap=True)
    _numeric(table, "raised", "moved", "ESS", "weak Δ", "rest Δ", "s")
    for line in summary.rounds:
        if line.error:
            table.add_row(str(line.number), "–", "[red]failed[/red]")
            continue
        table.add_row(
            str(line.number),
            percent(line.ap),
            escape(f"{len(line.weak)}: {', '.join(line.weak[:5])}"),
            str(line.num_raised),
            f"{percent(line.moved_share)} %",
            f"{percent(line.effective_share, 0)} %",
            points(line.gain_weak),
            points(line.gain_rest),
            f"{line.seconds:.1f}",
        )
    return table


def _classes_table(classes: tuple[ClassSummary, ...]) -> Table:
    table = Table(title="Classes", title_justify="left", box=None, pad_edge=False)
    table.add_column("class", max_width=24, no_wrap=True)
    _numeric(
        table, "first AP", "last AP", "boosted", "Δ boosted", "Δ rest", "trust", "missed", "draws"
    )
    for line in classes:
        known = [value for value in line.ap.tolist() if not math.isnan(value)]
        table.add_row(
            escape(line.name),
            percent(known[0]) if known else "–",
            percent(known[-1]) if known else "–",
            str(line.num_boosted),
            points(line.gain_boosted),
            points(line.gain_rest),
            "–" if math.isnan(line.trust) else f"{line.trust:.2f}",
            "–" if math.isnan(line.missed) else f"{line.missed:.2f} ×",
            "–" if math.isnan(line.draws) else f"{line.draws:.2f} ×",
        )
    return table

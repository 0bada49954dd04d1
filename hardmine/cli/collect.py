"""``hardmine collect``: which images of an unlabelled pool to label next."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardmine.cli.progress import console, one_line
from hardmine.cli.serve import add_source_arguments, open_sources
from hardmine.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_source_arguments(parser, required=("ann", "pool"))
    parser.add_argument(
        "--budget", type=int, default=50, help="most images to choose (default: %(default)s)"
    )
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="JSON on stdout")
    output.add_argument(
        "--export",
        choices=("coco", "labelstudio", "cvat"),
        help="write the images with the regions that matched for a labelling tool, into --out",
    )
    parser.add_argument("--out", metavar="FILE", help="file of --export")


def run(args: argparse.Namespace) -> int:
    """Choose the images and show or write them; exit status 1 if none fits what is weak."""
    from hardmine.exports import write_export
    from hardmine.records import plain_values
    from hardmine.serve.collect import MAX_BUDGET, collect
    from hardmine.serve.live import Live

    if (args.export is None) != (args.out is None):
        raise InputError("--export FORMAT and --out FILE go together")
    if not 1 <= args.budget <= MAX_BUDGET:
        raise InputError(f"--budget must lie in 1 to {MAX_BUDGET}, got {args.budget}")
    space = open_sources(args)
    wanted = Live(space).wishes.wait()
    if wanted.value is None:
        raise InputError(wanted.error)
    chosen = collect(wanted.value, space.index_of("pool"), args.budget)
    values = chosen.to_json(space)
    if args.json:
        root = str(space.index_of("pool").root)
        print(json.dumps(plain_values({"format": 1, "root": root, **values}), allow_nan=False))
        return 0 if chosen.picks else 1
    _show_wishes(values)
    if args.export is not None:
        write_export(chosen.mined, args.export, args.out)
        console.print(
            f"wrote {escape(args.out)} ({len(chosen.mined)} images)",
            highlight=False,
            soft_wrap=True,
        )
    else:
        _show_images(values)
    return 0 if chosen.picks else 1


def _show_wishes(values: dict[str, Any]) -> None:
    """Say on stderr what images are wanted of."""
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("wanted")
    for heading in ("need", "labelled", "chosen", "expected to show it"):
        table.add_column(heading, justify="right")
    for wish in sorted(values["wishes"], key=lambda wish: -wish["need"]):
        expected = "–" if wish["expected"] is None else f"{wish['expected']:.1f}"
        table.add_row(
            escape(wish["name"]) + ("" if wish["is_class"] else " [dim](condition)[/dim]"),
            f"{wish['need']:.2f}",
            f"{wish['num_labelled']:,}",
            str(wish["num_chosen"]),
            expected,
        )
    console.print(table)
    known = values["num_labelled"]
    console.print(
        f"{len(values['images'])} of {values['num_pool']:,} images"
        + (f", {known:,} of which have labels and are left out" if known else "")
        + f"; need is taken from {escape(values['need_from'])}",
        highlight=False,
    )


def _show_images(values: dict[str, Any]) -> None:
    """Print a table in a terminal, else a line per image: place, wish, fit, id, path.

    Fields are separated by tabs; those inside a field are escaped.
    """
    lines = [
        (str(place), one["wish"], f"{one['fit']:.3f}", str(one["id"]), one["path"])
        for place, one in enumerate(values["images"], start=1)
    ]
    if not sys.stdout.isatty():
        for line in lines:
            print(*(one_line(field) for field in line), sep="\t")
        return
    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("", "wanted for", "fit", "id", "image"):
        table.add_column(heading, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    Console().print(table)

"""``hardmine report``: the weak classes of a detector, why they are weak, and what mining does."""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardmine.cli.files import write_page, write_text
from hardmine.cli.progress import console as messages
from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.encoders.base import Encoder
    from hardmine.index.base import Index
    from hardmine.records import ImageSet
    from hardmine.report.gap_output import GapReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    scores = parser.add_argument_group("validation of the detector (one of the two)")
    scores.add_argument(
        "--detections", type=Path, metavar="FILE", help="COCO results file (.json); needs --val-ann"
    )
    scores.add_argument(
        "--metrics",
        type=Path,
        metavar="FILE",
        help="per-class APs of mmdet, detectron2 or Ultralytics, or a CSV of class and AP",
    )
    parser.add_argument(
        "--val-ann", type=Path, metavar="FILE", help="annotation file of the validation images"
    )
    parser.add_argument(
        "--ann", type=Path, metavar="FILE", help="annotation file of the training images"
    )
    parser.add_argument(
        "--percent", action="store_true", help="the APs of a CSV are in percent, not in [0, 1]"
    )
    mining = parser.add_argument_group("what mining would do")
    mining.add_argument("--index", type=Path, metavar="DIR", help="index of the training images")
    mining.add_argument("--encoder", help="encoder to use (default: the one that built the index)")
    mining.add_argument(
        "--images", type=Path, metavar="DIR", help="folder of the images, if they were moved"
    )
    mining.add_argument("--device", help="such as cpu or cuda:0")
    mining.add_argument(
        "--epochs",
        type=float,
        metavar="N",
        help="how often the next training will show each image; says what mining gained in "
        "benchmarks like that, and shows the draws of its last quarter where they alone differ",
    )
    mining.add_argument(
        "--relabel",
        type=Path,
        metavar="DIR",
        help="write suspected missing labels to DIR: suspects.csv and a file for a labelling tool",
    )
    mining.add_argument(
        "--export",
        choices=("coco", "labelstudio", "cvat"),
        default="coco",
        help="format of that file: proposals.json, tasks.json or annotations.xml "
        "(default: %(default)s)",
    )
    mining.add_argument(
        "--image-url",
        default="/data/local-files/?d=",
        metavar="PREFIX",
        help="labelstudio: put before each path to make its address (default: %(default)s)",
    )
    slices = parser.add_argument_group("slices (need detections and an index)")
    slices.add_argument(
        "--slice",
        dest="slices",
        action="append",
        default=[],
        metavar="TEXT",
        help='AP on the validation images that match TEXT, such as "person at night"; repeatable',
    )
    slices.add_argument(
        "--suggest-slices",
        action="store_true",
        help="try 229 conditions, such as 'in fog', and keep those in which the detector fails",
    )
    slices.add_argument(
        "--val-index",
        type=Path,
        metavar="DIR",
        help="index of the validation images (default: --index); also shows what missed objects "
        "look like, to mining",
    )
    output = parser.add_argument_group("output")
    output.add_argument("--out", type=Path, metavar="PAGE", help="write an HTML page")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write one row for each class")
    output.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    output.add_argument(
        "--classes",
        type=int,
        default=15,
        help="number of classes to list, weakest first (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Make the report; figures on stdout, messages on stderr."""
    from hardmine.report.gap_output import to_csv, to_json

    _check(args)
    with messages.status("reading"):
        val, train = _labels(args.val_ann), _labels(args.ann)
        report, index, val_index = _make(args, val, train)
    if args.csv is not None:
        write_text(args.csv, to_csv(report))
    if args.relabel is not None and report.mining is not None:
        from hardmine.report.relabel import write_suspects

        suspects = report.mining.suspects
        written = write_suspects(suspects, args.relabel, args.export, image_url=args.image_url)
        for path in written:
            messages.print(f"wrote {path}", highlight=False, soft_wrap=True)
    if args.out is not None:
        from hardmine.report.gap_page import gap_page

        page = gap_page(
            report,
            root=_pictures(index, train),
            val_root=_pictures(val_index, train if args.val_index is None else val),
        )
        roots = [one.root for one in (index, val_index) if one is not None]
        write_page(args.out, page, roots)
    if args.json:
        print(json.dumps(to_json(report), allow_nan=False, indent=1))
    else:
        show(report, Console(), num_classes=args.classes)
    return 0


def show(report: GapReport, console: Console, *, num_classes: int) -> None:
    """Print the weakest classes, what mining would do, and slices."""
    from hardmine.report.diagnose import KINDS
    from hardmine.report.units import percent

    table = Table(title=escape(report.title), title_justify="left", box=None, pad_edge=False)
    table.add_column("class", max_width=20, no_wrap=True)
    for heading in ("AP", "interval", "S", "M", "L", "objects", "found"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("kind of gap", ratio=1)
    for gap in report.gaps[:num_classes]:
        low, high = percent(gap.low, 0), percent(gap.high, 0)
        table.add_row(
            escape(gap.name),
            percent(gap.ap),
            "–" if math.isnan(gap.low) else f"{low} to {high}",
            *(percent(ap, 0) for ap in gap.by_size),
            "–" if gap.val is None else f"{gap.val.instances:,}",
            "–" if gap.errors is None else percent(gap.errors.found, 0),
            escape(", ".join(KINDS[kind] for kind in gap.kinds) or gap.sentence),
        )
    console.print(table)
    console.print(
        "In percent: AP, its 90 % interval, AP of small, medium and large objects (S, M, L), and "
        "found, the objects with a detection at IoU 0.5.",
        style="dim",
        highlight=False,
    )
    hidden = len(report.gaps) - num_classes
    if hidden > 0:
        console.print(f"[dim]{hidden} more classes: --classes {len(report.gaps)}[/dim]")
    console.print(
        f"\nMean AP {percent(report.mean_ap)} % over "
        f"{sum(not math.isnan(gap.ap) for gap in report.gaps)} classes; {len(report.weak)} weak."
    )
    if report.mining is not None:
        mining = report.mining
        console.print(
            f"Mining would draw {mining.num_raised:,} of {mining.num_images:,} images more often "
            f"and move {percent(mining.moved_share)} % of the draws. Suspected missing labels: "
            f"{len(mining.suspects):,}."
        )
        if mining.drawn_by:
            console.print(f"In the last quarter of the training: {mining.drawn_by}.")
        if report.outlook:
            console.print("In benchmarks where the same was weak it gained, over uniform draws:")
        else:
            console.print(
                "No benchmark was weak like this: no class has few objects, and no slice fails "
                "that training seldom shows (--slice, --suggest-slices)."
            )
        for benchmark in report.outlook:
            console.print(f"  {benchmark.sentence}")
    for one in report.slices:
        line = _slice_line(one.text, one.ap_inside, one.ap_outside, one.low, one.high)
        shown = f"; {one.shown}" if one.shown else ""
        console.print(escape(line + shown))
    for note in report.notes:
        console.print(f"[yellow]{escape(note)}[/yellow]")


def _slice_line(text: str, inside: float, outside: float, low: float, high: float) -> str:
    from hardmine.report.units import percent, points

    if math.isnan(inside):
        return f"{text}: too few objects to compare"
    return (
        f"{text}: AP {percent(inside)} % on images that match, {percent(outside)} % on the rest, "
        f"difference {points(outside - inside)} points ({points(low)} to {points(high)})"
    )


def _check(args: argparse.Namespace) -> None:
    if (args.detections is None) == (args.metrics is None):
        raise InputError(
            "a report needs validation results: give either --detections FILE or --metrics FILE"
        )
    if args.detections is not None and args.val_ann is None:
        raise InputError("--detections need the validation labels: give them with --val-ann")
    if args.index is not None and args.ann is None:
        raise InputError("--index needs the training labels: give them with --ann")
    if args.epochs is not None and not 0 < args.epochs < math.inf:
        raise InputError(f"--epochs must be above 0, got {args.epochs}")
    if args.epochs is not None and args.index is None:
        raise InputError("--epochs needs an index of the training images: give it with --index")
    if args.relabel is not None and args.index is None:
        raise InputError("--relabel needs an index of the training images: give it with --index")
    if args.slices or args.suggest_slices:
        if args.detections is None:
            raise InputError(
                "a slice is measured from detections on single images: give --detections"
            )
        if args.val_index is None and args.index is None:
            raise InputError("slices need an index of the validation images: give --val-index")


def _make(
    args: argparse.Namespace, val: ImageSet | None, train: ImageSet | None
) -> tuple[GapReport, Index | None, Index | None]:
    from hardmine.report.make import make_report

    index, encoder = _open(args.index, args)
    val_index = index
    if args.val_index is not None:
        val_index, encoder = _open(args.val_index, args)
    report = make_report(
        title=(args.detections or args.metrics).name,
        detections=args.detections,
        metrics=args.metrics,
        percent=args.percent,
        val=val,
        train=train,
        index=index,
        val_index=val_index,
        encoder=encoder,
        slices=args.slices,
        suggest=args.suggest_slices,
        epochs=args.epochs,
    )
    return report, index, val_index


def _labels(path: Path | None) -> ImageSet | None:
    from hardmine.datasets import load_images

    return None if path is None else load_images(path, check_files=False)


def _open(path: Path | None, args: argparse.Namespace) -> tuple[Index | None, Encoder | None]:
    from hardmine.encoders import load_encoder
    from hardmine.index import open_index, stored_encoder

    if path is None:
        return None, None
    encoder = (
        load_encoder(args.encoder, device=args.device)
        if args.encoder
        else stored_encoder(path, device=args.device)
    )
    return open_index(path, encoder=encoder, device=args.device, root=args.images), encoder


def _pictures(index: Index | None, images: ImageSet | None) -> Path | ImageSet | None:
    """Where the pictures of an index are: in its folder, or in a set that opens them itself."""
    if index is None:
        return None
    return images if images is not None and images.reader is not None else index.root

"""``hardmine eval``: retrieval metrics of an index, for class names or other texts."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from hardmine import defaults
from hardmine.cli.files import write_text
from hardmine.cli.progress import console, progress_bar
from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.encoders.base import Encoder
    from hardmine.evaluation.classes import ClassEvaluation
    from hardmine.index.base import Index
    from hardmine.records import ImageSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "index",
        nargs="?",
        type=Path,
        help="index to evaluate; if not given, one is built below --work",
    )
    parser.add_argument("--ann", required=True, type=Path, help="annotation file of the images")
    parser.add_argument("--images", type=Path, help="folder of the images")
    parser.add_argument("--encoder", help="encoder of the index that is built (default: tiny)")
    parser.add_argument("--image-size", type=int, help="side in pixels that images are resized to")
    parser.add_argument(
        "--clusters",
        default=defaults.CLUSTERS,
        help="clustering of the index that is built (default: %(default)s)",
    )
    parser.add_argument(
        "--work",
        type=Path,
        default=Path("hardmine-eval"),
        help="folder for the indexes that are built (default: %(default)s)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:0")
    parser.add_argument("--batch-size", type=int, default=32, help="default: %(default)s")
    parser.add_argument(
        "--workers",
        type=int,
        help="threads that decode images (default: one per CPU core, at most 16)",
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "--table", type=Path, help="table of the paper to measure, such as configs/paper/coco.yaml"
    )
    what.add_argument("--queries", type=Path, help="JSON file of texts with their relevant images")
    parser.add_argument(
        "--templates",
        default="clip80",
        help="prompt templates for class names (default: %(default)s)",
    )
    parser.add_argument("-k", type=int, default=50, help="depth of AP@k (default: %(default)s)")
    parser.add_argument(
        "--reference-side",
        type=float,
        help="measure object areas as if the longer side of each image had this many pixels",
    )
    parser.add_argument(
        "--rare-below",
        type=int,
        metavar="N",
        help="group classes into rare (in fewer than N images) and frequent",
    )
    parser.add_argument(
        "--all-images",
        action="store_true",
        help="federated labels (LVIS): also rank images whose class was not verified",
    )
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=0,
        metavar="N",
        help="number of bootstrap samples for intervals",
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the bootstrap")
    parser.add_argument("--per-class", action="store_true", help="also print every class")
    parser.add_argument("--json", action="store_true", help="JSON on stdout instead of a table")
    parser.add_argument(
        "--markdown", action="store_true", help="Markdown on stdout instead of a table"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write one row for each class")


def run(args: argparse.Namespace) -> int:
    """Evaluate and print; figures on stdout, progress on stderr."""
    from hardmine.datasets import load_images

    if args.json and args.markdown:
        raise InputError("give --json or --markdown, not both")
    # Only a build reads the image files; an index holds the vectors.
    images = load_images(
        args.images or args.ann.parent, annotations=args.ann, check_files=args.index is None
    )
    if args.table is not None:
        return _run_table(args, images)
    if args.queries is not None:
        return _run_queries(args, images)
    return _run_classes(args, images)


def _index_and_encoder(args: argparse.Namespace, images: ImageSet) -> tuple[Index, Encoder]:
    from hardmine.encoders import load_encoder
    from hardmine.evaluation.protocol import SystemRow
    from hardmine.index import build_index, open_index, stored_encoder

    if args.index is not None:
        encoder = stored_encoder(args.index, device=args.device)
        return open_index(args.index, encoder=encoder, device=args.device), encoder
    name = args.encoder or "tiny"
    encoder = load_encoder(name, image_size=args.image_size, device=args.device)
    row = SystemRow("", "", name, args.clusters, image_size=args.image_size)
    with progress_bar() as bar:
        task = bar.add_task("embedding", total=len(images), note="")
        index = build_index(
            images,
            encoder,
            args.work / row.folder,
            clusters=args.clusters,
            batch_size=args.batch_size,
            workers=args.workers,
            progress=lambda p: bar.update(task, completed=p.done, total=p.total),
        )
    return index, encoder


def _run_classes(args: argparse.Namespace, images: ImageSet) -> int:
    from hardmine.encoders.templates import embed_prompts
    from hardmine.evaluation.classes import evaluate_classes

    index, encoder = _index_and_encoder(args, images)
    texts = embed_prompts(encoder, images.class_names, templates=args.templates)
    with progress_bar() as bar:
        task = bar.add_task("ranking classes", total=len(texts), note="")
        evaluation = evaluate_classes(
            index,
            images,
            texts,
            k=args.k,
            reference_side=args.reference_side,
            rare_below=args.rare_below,
            all_images=args.all_images,
            bootstrap=args.bootstrap,
            seed=args.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    _print_evaluation(args, evaluation)
    return 0


def _print_evaluation(args: argparse.Namespace, evaluation: ClassEvaluation) -> None:
    from hardmine.evaluation import output

    if args.csv is not None:
        write_text(args.csv, output.to_csv(output.class_rows(evaluation)))
    if args.json:
        print(json.dumps(output.to_json(evaluation), indent=2, allow_nan=False))
        return
    if args.markdown:
        print(output.to_markdown(evaluation))
        return
    title = f"{evaluation.num_images} images, {evaluation.vectors_per_image:.1f} vectors per image"
    rows = [[label, *cells] for label, cells in output.summary_rows(evaluation)]
    legend = (
        f"In percent, means over classes. AP@{evaluation.k} is divided by the images of the class, "
        f"at most {evaluation.k}; ÷ found: by those among the first {evaluation.k}; ÷ relevant: by "
        "all of them. small-medium leaves out images with a large object of the class."
    )
    _print_table(title, output.summary_header(evaluation.k), rows, legend)
    if args.per_class:
        header = ["class", "images", f"AP@{evaluation.k}", "AP", "images s-m", "AP s-m"]
        _print_table("", header, output.class_cells(evaluation))
    if evaluation.num_left_out:
        console.print(f"{evaluation.num_left_out} labelled images are not in the index")


def _run_queries(args: argparse.Namespace, images: ImageSet) -> int:
    from hardmine.encoders.templates import embed_prompts
    from hardmine.evaluation import output
    from hardmine.evaluation.labelled_queries import read_queries
    from hardmine.evaluation.retrieval import evaluate
    from hardmine.index.coverage import require_same_files

    queries = read_queries(args.queries, images)
    index, encoder = _index_and_encoder(args, images)
    require_same_files(index, images)
    texts = embed_prompts(encoder, queries.texts, templates="plain")
    depths = (1, 5, 10)
    with progress_bar() as bar:
        task = bar.add_task("ranking queries", total=len(texts), note="")
        [scores] = evaluate(
            index,
            images.ids,
            texts,
            [queries.relevance],
            k=args.k,
            recall_depths=depths,
            bootstrap=args.bootstrap,
            seed=args.seed,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    summary = output.query_summary(scores, k=args.k)
    if args.csv is not None:
        write_text(args.csv, output.to_csv(output.query_rows(queries.texts, scores)))
    if args.json:
        print(json.dumps(output.query_json(queries.texts, scores, args.k), allow_nan=False))
    elif args.markdown:
        print(output.markdown_table([f"{len(queries.texts)} queries", ""], summary))
    else:
        _print_table(f"{len(queries.texts)} queries, {len(images)} images", ["", ""], summary)
    return 0


def _run_table(args: argparse.Namespace, images: ImageSet) -> int:
    from hardmine.evaluation import paper_table
    from hardmine.evaluation.output import markdown_table
    from hardmine.evaluation.protocol import PUBLISHED_SOURCE, load_protocol, run_protocol

    protocol, rows = load_protocol(args.table)
    with progress_bar() as bar:
        task = bar.add_task("", total=len(images), note="")
        results = list(
            run_protocol(
                protocol,
                rows,
                images,
                args.work,
                device=args.device,
                batch_size=args.batch_size,
                workers=args.workers,
                bootstrap=args.bootstrap,
                announce=lambda row: bar.reset(task, description=row.label, note=""),
                build_progress=lambda p: bar.update(task, completed=p.done, total=p.total),
            )
        )
    if args.json:
        print(json.dumps(paper_table.to_json(protocol, results), indent=2, allow_nan=False))
    elif args.markdown:
        print(markdown_table(paper_table.HEADER, paper_table.table_rows(protocol, results)))
    else:
        title = f"{protocol.name}: measured figures, published ones in brackets"
        _print_table(title, paper_table.HEADER, paper_table.table_rows(protocol, results))
    for reason, labels in paper_table.reasons(results).items():
        console.print(f"did not run: [bold]{', '.join(labels)}[/]", highlight=False)
        console.print(f"  {reason}", markup=False, highlight=False, soft_wrap=True)
    if protocol.published:
        console.print(f"published figures: {PUBLISHED_SOURCE}", highlight=False)
    return 0 if any(result.evaluation for result in results) else 1


def _print_table(title: str, header: list[str], rows: list[list[str]], legend: str = "") -> None:
    table = Table(title=title or None, title_justify="left", show_header=any(header))
    for place, name in enumerate(header):
        table.add_column(name, justify="left" if place == 0 else "right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    if legend:
        Console().print(legend, style="dim", highlight=False)

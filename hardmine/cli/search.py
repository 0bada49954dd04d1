"""``hardmine search``: find images by text or by image."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from hardmine.cli.files import write_page
from hardmine.cli.progress import console, one_line, progress_bar
from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.encoders.base import Encoder
    from hardmine.index.base import Index
    from hardmine.records import Hits, ImageSet


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("index", type=Path, help="folder of the index")
    parser.add_argument("texts", nargs="*", metavar="TEXT", help='such as "a bicycle at night"')
    parser.add_argument(
        "--image", action="append", default=[], type=Path, metavar="FILE", help="search by an image"
    )
    parser.add_argument(
        "--not",
        dest="excluded",
        action="append",
        default=[],
        metavar="TEXT",
        help="leave out images that score at least as high for TEXT as for the query",
    )
    parser.add_argument("-k", type=int, default=20, help="images per query (default: %(default)s)")
    parser.add_argument(
        "--templates", help="prompt templates around TEXT: clip80 or short (default: none)"
    )
    parser.add_argument("--ann", type=Path, help="annotation file, for --class")
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="search only images labelled with this class",
    )
    parser.add_argument(
        "--ids", type=Path, metavar="FILE", help="search only images with these ids, one per line"
    )
    parser.add_argument(
        "--images",
        type=Path,
        help="folder of the images, if they have moved; or a data set saved by save_to_disk",
    )
    parser.add_argument(
        "--encoder", help="encoder of the queries (default: the one that built the index)"
    )
    parser.add_argument(
        "--backend",
        default="exact",
        help="exact, lance, faiss:flat, faiss:ivfpq, faiss:hnsw or milvus:ADDRESS "
        "(default: %(default)s)",
    )
    parser.add_argument("--device", help="such as cpu or cuda:0")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="JSON on stdout")
    output.add_argument("--html", type=Path, metavar="PAGE", help="write a page with the images")
    output.add_argument(
        "--export",
        choices=("coco", "labelstudio", "cvat"),
        help="write the hits with their regions for a labelling tool, into --out",
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="file of --export")
    parser.add_argument(
        "--image-url",
        default="/data/local-files/?d=",
        metavar="PREFIX",
        help="labelstudio: put before each path to make its address (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> int:
    """Search and show the hits; exit status 1 if no query found an image."""
    from hardmine.datasets.arrow import saved_images
    from hardmine.datasets.paths import SUFFIXES
    from hardmine.encoders import load_encoder
    from hardmine.index import open_index, stored_encoder
    from hardmine.index.search.exclude import search_excluding

    if not args.texts and not args.image:
        raise InputError("nothing to search for: give a TEXT, or an image with --image")
    for text in args.texts:
        if not text.strip():
            raise InputError("a TEXT is empty; say what to search for")
        if Path(text).suffix.lower() in SUFFIXES:
            raise InputError(f"{text} is a file, not a text; search by its picture: --image {text}")
    if (args.export is None) != (args.out is None):
        raise InputError("--export FORMAT and --out FILE go together")
    encoder = (
        load_encoder(args.encoder, device=args.device)
        if args.encoder
        else stored_encoder(args.index, device=args.device)
    )
    images = saved_images(args.images)
    index = open_index(
        args.index,
        encoder=encoder,
        images=images,
        backend=args.backend,
        device=args.device,
        root=args.images if images is None else None,
    )
    rows = _rows(index, args)
    queries = [*args.texts, *(str(path) for path in args.image)]
    vectors = np.concatenate(
        [_embed_texts(encoder, args.texts, args.templates), _embed_images(encoder, args.image)]
    )
    excluded = _embed_texts(encoder, args.excluded, args.templates)
    start = time.perf_counter()
    hits = search_excluding(index, vectors, excluded, args.k, rows=rows)
    seconds = time.perf_counter() - start
    if args.json:
        print(json.dumps(_to_json(index, queries, hits), indent=1))
    elif args.html is not None:
        _write_page(args, index, images, queries, hits, seconds)
    elif args.export is not None:
        _export(args, index, queries, hits)
    else:
        _show(index, queries, hits)
    return 0 if hits.found.any() else 1


def _embed_texts(
    encoder: Encoder, texts: list[str], templates: str | None
) -> npt.NDArray[np.float32]:
    from hardmine.encoders.templates import embed_prompts

    if not texts:
        return np.zeros((0, encoder.dim), np.float32)
    if templates is not None:
        return embed_prompts(encoder, texts, templates=templates)
    return encoder.encode_texts(texts).float().cpu().numpy()


def _embed_images(encoder: Encoder, paths: list[Path]) -> npt.NDArray[np.float32]:
    """Embed whole images, one at a time, as their preprocessed sizes may differ."""
    from hardmine.datasets import open_image

    vectors = [np.zeros((0, encoder.dim), np.float32)]
    for path in paths:
        features = encoder.encode_images(encoder.preprocess(open_image(path))[None])
        vectors.append(features.whole.float().cpu().numpy())
    return np.concatenate(vectors)


def _rows(index: Index, args: argparse.Namespace) -> npt.NDArray[np.int64] | None:
    """Rows that --class and --ids select; None for all."""
    ids: list[npt.NDArray[Any]] = []
    if args.classes:
        ids.append(_labelled(index, args))
    if args.ids is not None:
        ids.append(_read_ids(args.ids, integers=index.ids.dtype.kind == "i"))
    if not ids:
        return None
    rows = index.rows_of(ids[0])
    for selected in ids[1:]:
        rows = np.intersect1d(rows, index.rows_of(selected))
    indexed = rows[rows >= 0]
    if len(indexed) == 0:
        raise InputError("none of the images that --class and --ids select is in the index")
    if len(indexed) < len(rows):
        missing = len(rows) - len(indexed)
        console.print(f"{missing} of the {len(rows)} selected images are not in the index")
    return indexed


def _labelled(index: Index, args: argparse.Namespace) -> npt.NDArray[Any]:
    """Ids of the images labelled with any of the --class names."""
    from hardmine.datasets import load_images
    from hardmine.index.coverage import require_same_files
    from hardmine.metrics.names import match_names

    if args.ann is None:
        raise InputError("--class needs the labels: give the annotation file with --ann")
    # The labels alone are needed, wherever the images are.
    images = load_images(args.images or args.ann.parent, annotations=args.ann, check_files=False)
    require_same_files(index, images)
    match = match_names(args.classes, images.class_names)
    for name, near in match.missing:
        hint = f"; did you mean {near!r}?" if near else ""
        raise InputError(f"{args.ann} has no class {name!r}{hint}")
    has_class = np.asarray(images.class_counts[:, match.rows].sum(axis=1)).ravel() > 0
    return np.asarray(images.ids[has_class])


def _read_ids(path: Path, *, integers: bool) -> npt.NDArray[Any]:
    """Ids in a text file, one per line."""
    try:
        words = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read: {error}") from error
    words = [word.strip() for word in words if word.strip()]
    if not integers:
        return np.array(words, dtype=str)
    try:
        return np.array([int(word) for word in words], np.int64)
    except ValueError as error:
        raise InputError(f"{path}: ids of this index are integers: {error}") from error


def _to_json(index: Index, queries: list[str], hits: Hits) -> dict[str, Any]:
    """Queries and hits as JSON values."""
    return {
        "root": str(index.root),
        "queries": [
            {
                "query": query,
                "hits": [
                    {
                        "rank": column + 1,
                        "id": index.ids[row].item(),
                        "path": index.paths[row],
                        "score": round(float(hits.scores[number, column]), 6),
                        "box": [round(float(edge), 4) for edge in hits.boxes[number, column]],
                    }
                    for column, row in enumerate(hits.image_rows[number].tolist())
                    if row >= 0
                ],
            }
            for number, query in enumerate(queries)
        ],
    }


def _show(index: Index, queries: list[str], hits: Hits) -> None:
    """Print a table in a terminal, else a line per hit: query, rank, score, id, path.

    Fields are separated by tabs; those inside a field are escaped.
    """
    results = _to_json(index, queries, hits)["queries"]
    if not sys.stdout.isatty():
        for result in results:
            for hit in result["hits"]:
                line = (result["query"], hit["rank"], f"{hit['score']:.4f}", hit["id"], hit["path"])
                print(*(one_line(str(field)) for field in line), sep="\t")
        return
    terminal = Console()
    for result in results:
        table = Table(
            title=escape(result["query"]),
            title_justify="left",
            title_style="bold",
            box=box.SIMPLE_HEAD,
        )
        table.add_column("", justify="right", style="dim")
        table.add_column("score", justify="right")
        table.add_column("image", overflow="fold")
        table.add_column("id", style="dim")
        table.add_column("region x, y, w, h in %", justify="right", style="dim")
        for hit in result["hits"]:
            left, top, right, bottom = (100 * edge for edge in hit["box"])
            region = f"{left:3.0f} {top:3.0f} {right - left:3.0f} {bottom - top:3.0f}"
            table.add_row(
                str(hit["rank"]),
                f"{hit['score']:.4f}",
                escape(hit["path"]),
                escape(str(hit["id"])),
                region,
            )
        terminal.print(table if result["hits"] else f"{escape(result['query'])}: no image found")


def _export(args: argparse.Namespace, index: Index, queries: list[str], hits: Hits) -> None:
    from hardmine.exports import images_of_hits, write_export
    from hardmine.exports.files import label_studio_config

    mined = images_of_hits(index, queries, hits)
    write_export(mined, args.export, args.out, image_url=args.image_url)
    console.print(f"wrote {args.out} ({len(mined)} regions)", highlight=False, soft_wrap=True)
    if args.export == "labelstudio":
        console.print("labelling configuration of the project:", highlight=False)
        config = label_studio_config(mined)
        console.print(config, highlight=False, markup=False, soft_wrap=True)


def _write_page(
    args: argparse.Namespace,
    index: Index,
    images: ImageSet | None,
    queries: list[str],
    hits: Hits,
    seconds: float,
) -> None:
    from hardmine.report.search_page import search_page

    summary = [
        ("index", args.index.name),
        ("images", f"{len(index):,}"),
        ("clusters", index.clusters),
    ]
    if args.excluded:
        summary.append(("not", ", ".join(args.excluded)))
    if args.classes:
        summary.append(("class", ", ".join(args.classes)))
    if args.ids is not None:
        summary.append(("ids", args.ids.name))
    summary.append(("searched in", f"{1000 * seconds:.0f} ms"))
    with progress_bar() as bar:
        task = bar.add_task("reading images", total=int(hits.found.sum()), note="")
        page = search_page(
            index,
            queries,
            hits,
            images=images,
            about=summary,
            progress=lambda: bar.advance(task),
        )
    write_page(args.html, page, [index.root])

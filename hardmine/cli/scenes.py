"""``hardmine scenes``: write a data set of generated, labelled scenes."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from hardmine.addresses import require_local
from hardmine.cli.progress import console, progress_bar
from hardmine.scenes import write_scenes


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("out", type=Path, metavar="OUT", help="new or empty folder to write to")
    parser.add_argument(
        "--images", type=int, default=1000, help="images of train and val together (1000)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the series of scenes (0)")
    parser.add_argument(
        "--val-share", type=float, default=0.2, help="share of the images in val (0.2)"
    )
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels (224)")
    parser.add_argument(
        "--tail",
        type=float,
        default=100.0,
        help="frequency of the most frequent class relative to the rarest (100)",
    )
    parser.add_argument(
        "--crowd",
        type=float,
        default=1.0,
        help="number of objects relative to an ordinary scene (1)",
    )
    parser.add_argument(
        "--missing", type=float, default=0.0, help="share of train objects without a label (0)"
    )
    parser.add_argument(
        "--wrong", type=float, default=0.0, help="share of train objects with a wrong label (0)"
    )
    parser.add_argument("--png", action="store_true", help="write PNG instead of JPEG")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object")


def run(args: argparse.Namespace) -> int:
    """Write the scenes and print where they are and how many."""
    require_local(args.out, "a data set of scenes")
    with progress_bar() as bar:
        task = bar.add_task("drawing scenes", total=args.images, note="")
        written = write_scenes(
            args.out,
            num_images=args.images,
            seed=args.seed,
            val_share=args.val_share,
            size=args.size,
            tail=args.tail,
            crowd=args.crowd,
            missing=args.missing,
            wrong=args.wrong,
            lossless=args.png,
            on_image=lambda: bar.advance(task),
        )
    if args.json:
        rows = {
            split: {
                "annotations": str(part.annotations),
                "truth": str(part.truth),
                "images": part.num_images,
                "labels": part.num_labels,
                "objects": part.num_objects,
            }
            for split, part in written.items()
        }
        print(json.dumps(rows, indent=2))
        return 0
    for split, part in written.items():
        counts = f"{part.num_images} images, {part.num_labels} labels of {part.num_objects} objects"
        print(f"{split}\t{part.annotations}\t{counts}")
    index = f"hardmine index build {args.out} --split train --out {args.out}/train.hmx"
    console.print(f"next: {index}", highlight=False, soft_wrap=True)
    return 0

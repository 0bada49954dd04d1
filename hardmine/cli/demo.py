"""``hardmine demo``: the whole method on generated scenes, offline."""

from __future__ import annotations

import argparse
import time
import webbrowser
from pathlib import Path

from hardmine.addresses import require_local
from hardmine.cli.progress import console, progress_bar
from hardmine.demo.steps import STEPS, Demo

_INTRODUCTION = """\
The whole method on {images:,} generated scenes, offline: an index, searches, a small detector
trained with mining and without, and pages about both. 3,000 scenes take about 5 minutes on two idle
cores, longer on a busy machine. Stop it at any time and run it again. All is written to {out}.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("hardmine-demo"),
        help="folder for everything it makes (default: %(default)s)",
    )
    parser.add_argument(
        "--images", type=int, default=3000, help="number of scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="seed of the scenes and the training (default: %(default)s)",
    )
    parser.add_argument(
        "--open", action="store_true", help="open the pages in a browser at the end"
    )


def run(args: argparse.Namespace) -> int:
    """Run the steps in order and print the outcome of each."""
    require_local(args.out, "the demo")
    demo = Demo(args.out, num_images=args.images, seed=args.seed)
    print(_INTRODUCTION.format(images=args.images, out=args.out), flush=True)
    for number, step in enumerate(STEPS, 1):
        started = time.perf_counter()
        with progress_bar() as bar:
            task = bar.add_task(step.title, total=None, note="")
            demo.progress = lambda done, total, bar=bar, task=task: bar.update(  # type: ignore[misc]
                task, completed=done, total=total
            )
            outcome = step.run(demo)
        seconds = time.perf_counter() - started
        print(f"{number}. {step.title} ({seconds:.1f} s): {outcome}", flush=True)
    console.print("open in a browser:", *demo.pages, highlight=False, soft_wrap=True)
    if args.open:
        for page in demo.pages:
            webbrowser.open(page.resolve().as_uri())
    return 0

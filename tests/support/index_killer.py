"""Kills a build, an update or a compaction at every step and checks that the index survives.

Run as a script: ``index_killer.py SCENARIO FOLDER``; prints a JSON report. Every attempt is a fork
of one process that has imported everything, which is much faster than a new process.
"""

from __future__ import annotations

import gc
import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from pixel_images import PixelEncoder, folder_bytes, list_images, write_image, write_images

from hardmine.errors import HardmineError
from hardmine.index import build_index, compact_index, open_index, update_index, verify_index

COUNT = 8
# Audit events that change files or their names; Python raises each before it happens.
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate"}


def build(folder: Path) -> None:
    """Two shards, one of them with a broken image."""
    images = list_images(folder.parent / "images", range(COUNT))
    build_index(images, PixelEncoder(), folder, clusters="kmeans:2", shard_size=4, batch_size=3)


def update(folder: Path) -> None:
    """Three images gone, one changed, three new."""
    images = list_images(folder.parent / "images", range(3, COUNT + 3))
    update_index(folder, images, PixelEncoder(), shard_size=3, batch_size=2)


def compact(folder: Path) -> None:
    """Free the space that the update left."""
    compact_index(folder, shard_size=4)


SCENARIOS: dict[str, tuple[list[Callable[[Path], None]], Callable[[Path], None]]] = {
    "build": ([], build),
    "update": ([build], update),
    "compact": ([build, update], compact),
}


def fork(work: Callable[[], object]) -> int:
    """Run a function in a child process and return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        work()
        os._exit(0)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)


def ended(child: int) -> str:
    """How a child ended: "whole", "killed" or "failed"."""
    status = os.waitpid(child, 0)[1]
    if os.WIFSIGNALED(status):
        return "killed"
    return "whole" if os.WEXITSTATUS(status) == 0 else "failed"


def killed_before(step: int, folder: Path, work: Callable[[Path], None]) -> str:
    """Kill the work before its step with this number that changes the folder."""

    def child() -> None:
        steps = 0

        def watch(event: str, arguments: tuple[object, ...]) -> None:
            nonlocal steps
            if event in EVENTS and str(arguments[0]).startswith(str(folder)):
                steps += 1
                if steps > step:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work(folder)

    return ended(fork(child))


def state(folder: Path) -> str:
    """Describe whether an index opens and every byte of it is sound."""
    try:
        rows = len(open_index(folder))
    except HardmineError:
        return "does not open"
    problems = verify_index(folder)
    return f"{rows} images" if not problems else f"opens, but {problems}"


def main(scenario: str, place: Path) -> None:
    """Kill at every step, then at random moments, and compare with an uninterrupted run."""
    torch.set_num_threads(1)
    gc.freeze()
    before, work = SCENARIOS[scenario]
    write_images(place / "images", COUNT + 3, broken=[5])
    start, folder, uninterrupted = place / "start", place / "out", place / "uninterrupted"
    for step in before:
        step(start)
    write_image(place / "images" / "7.jpg", 1007)

    def begin(target: Path) -> None:
        shutil.rmtree(target, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, target)

    begin(uninterrupted)
    work(uninterrupted)
    expected, good = folder_bytes(uninterrupted), {state(uninterrupted), state(start)}
    problems: list[str] = []

    def check(moment: str) -> None:
        if (now := state(folder)) not in good:
            problems.append(f"{moment}: {now}, not one of {good}")
        try:
            work(folder)
        except Exception as error:
            problems.append(f"{moment}: the next run failed with {type(error).__name__}: {error}")
        else:
            if folder_bytes(folder) != expected:
                problems.append(f"{moment}: the next run made other files")

    steps = 0
    while True:
        begin(folder)
        if killed_before(steps, folder, work) != "killed":
            break
        check(f"step {steps}")
        steps += 1
    kills = 0
    for seed in range(2):
        begin(folder)
        generator = random.Random(seed)
        # Kill repeatedly, each time a little later, until the work finishes first.
        for attempt in range(100):
            child = fork(lambda: work(folder))
            time.sleep(generator.uniform(0, 0.02 * (attempt + 1)))
            os.kill(child, signal.SIGKILL)
            if ended(child) == "whole":
                break
            kills += 1
            if (now := state(folder)) not in good:
                problems.append(f"seed {seed}, attempt {attempt}: {now}")
        check(f"seed {seed}")
    print(json.dumps({"steps": steps, "kills": kills, "problems": problems}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]).resolve())

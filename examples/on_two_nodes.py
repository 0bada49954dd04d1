"""An index built on two Ray nodes of this machine, of which one is killed in the middle.

python examples/on_two_nodes.py --images 2000
"""

import argparse
import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import repeat
from pathlib import Path

import psutil
import torch
from ray.cluster_utils import Cluster

import hardmine
from hardmine.scenes import write_split

SIZE = 96  # pixels of a side; at its own 384 the encoder would take most of the time


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="scenes to draw")
    parser.add_argument("--out", type=Path, default=Path("scale"), help="folder for everything")
    args = parser.parse_args()

    started = time.perf_counter()
    scenes = args.out / f"scenes-{args.images}"
    if not scenes.exists():
        timed("drawn", lambda: draw(scenes, args.images))
    images = hardmine.load_images(scenes, "folder")
    encoder = hardmine.load_encoder("tiny", device="cpu", image_size=SIZE)
    options = {"shard_size": max(1, min(1024, args.images // 20)), "resume": False}

    cpus = max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(cpus)  # as each node has: the number decides the last bits

    one, two = args.out / "one.hmx", args.out / "two.hmx"
    timed("built by one process", lambda: hardmine.build_index(images, encoder, one, **options))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster()
    node = {"num_cpus": cpus, "num_gpus": 0, "object_store_memory": 80_000_000}
    cluster.add_node(**node, include_dashboard=False)
    second, killed = cluster.add_node(**node), []

    def kill(progress):
        if not killed and progress.done >= progress.total / 2:
            killed.append(progress.done)
            end(second)
            print(f"  one of two nodes killed after {progress.done} images", flush=True)

    options |= {"executor": f"ray:{cluster.address}", "progress": kill}
    try:
        timed("built by two", lambda: hardmine.build_index(images, encoder, two, **options))
    finally:
        cluster.shutdown()
    made, expected = digests(two), digests(one)
    print(f"{len(made)} files, the same to the byte: {made == expected}")
    print(f"{len(images)} images in {time.perf_counter() - started:.0f} s in all")
    return 0 if made == expected and killed else 1


def draw(folder, count):
    """Draw scenes in as many processes as there are CPUs."""
    unfinished = folder.with_name(f"{folder.name}-{os.getpid()}")
    rows = [range(count)[start : start + 100] for start in range(0, count, 100)]
    names = [f"part-{part[0]:06d}" for part in rows]
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(write_split, size=SIZE), repeat(unfinished), names, rows))
    unfinished.rename(folder)


def end(node):
    """End all processes of a node at once, as a power cut does."""
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    for process in [*raylet.children(recursive=True), raylet]:
        process.kill()


def timed(what, action):
    started = time.perf_counter()
    action()
    print(f"{what}: {time.perf_counter() - started:.1f} s", flush=True)


def digests(folder):
    """SHA-256 of each file below a folder, by name."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    raise SystemExit(main())

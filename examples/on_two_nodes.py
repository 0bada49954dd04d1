"""An index built on two Ray nodes of this machine, of which one is killed in the middle.

python examples/on_two_nodes.py --images 2000
"""

import argparse
import hashlib
import os
import time
from pathlib import Path

import torch
from ray.cluster_utils import Cluster

import hardmine
from hardmine.scenes import write_scenes


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="scenes to draw")
    parser.add_argument("--out", type=Path, default=Path("scale"), help="folder for everything")
    args = parser.parse_args()

    scenes = args.out / f"scenes-{args.images}"
    if not scenes.exists():
        timed("drawn", lambda: write_scenes(scenes, num_images=args.images))
    images = hardmine.load_images(scenes, "folder")  # train and val alike
    encoder = hardmine.load_encoder("tiny", device="cpu")
    options = {"shard_size": max(1, min(1024, args.images // 20)), "resume": False}

    cpus = max(1, (os.cpu_count() or 2) // 2)
    torch.set_num_threads(cpus)  # as each node has: the number decides the last bits

    one, two = args.out / "one.hmx", args.out / "two.hmx"
    alone = timed(
        "built by one process", lambda: hardmine.build_index(images, encoder, one, **options)
    )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster()
    node = {"num_cpus": cpus, "num_gpus": 0, "object_store_memory": 80_000_000}
    cluster.add_node(**node, include_dashboard=False)
    second = cluster.add_node(**node)

    killed = []

    def kill(progress):
        if not killed and progress.done >= progress.total / 2:
            cluster.remove_node(second, allow_graceful=False)
            killed.append(progress.done)
            print(f"  one of two nodes killed after {progress.done} images")

    try:
        over_two = timed(
            "built by two Ray nodes",
            lambda: hardmine.build_index(
                images,
                encoder,
                two,
                executor=f"ray:{cluster.address}",
                progress=kill,
                **options,
            ),
        )
    finally:
        cluster.shutdown()
    same = digests(one) == digests(two)
    print(f"{len(digests(two))} files, the same to the byte: {same}")
    print(f"time, Ray / one process: {over_two / alone:.2f}")
    return 0 if same and killed else 1


def timed(what, action):
    """Run an action, print how long it took, and return that."""
    started = time.perf_counter()
    action()
    seconds = time.perf_counter() - started
    print(f"{what}: {seconds:.1f} s", flush=True)
    return seconds


def digests(folder):
    """SHA-256 of each file below a folder, by name."""
    return {
        path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest()
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    raise SystemExit(main())

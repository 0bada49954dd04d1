"""An index built on two Ray nodes of this machine, of which one is killed in the middle.

python examples/on_two_nodes.py --images 2000
"""

import argparse
import hashlib
import os
import time
from concurrent.futures import ProcessPoolExecutor
from itertools import product, repeat
from pathlib import Path

import psutil
import torch
from PIL import Image
from ray.cluster_utils import Cluster

import hardmine
from hardmine.scenes import SCENE_COMMENT, generate_scene

SIDE, SIZE = 384, 64  # pixels of a drawn scene, and of a picture that is cut from it


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=2000, help="pictures to make")
    parser.add_argument("--out", type=Path, default=Path("scale"), help="folder for everything")
    args = parser.parse_args()
    started = time.perf_counter()
    pictures = args.out / f"pictures-{args.images}"
    if not pictures.exists():
        timed("drawn", lambda: draw(pictures, args.images))
    images = hardmine.load_images(pictures, "folder").subset(range(args.images))
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
    """Draw scenes and cut them into pictures, in as many processes as there are CPUs."""
    unfinished = folder.with_name(f"{folder.name}-{os.getpid()}")
    unfinished.mkdir(parents=True)
    with ProcessPoolExecutor() as pool:
        list(pool.map(draw_scene, repeat(unfinished), range(-(-count // (SIDE // SIZE) ** 2))))
    unfinished.rename(folder)


def draw_scene(folder, number):
    """Draw one scene and cut it, as to draw each picture takes ten times as long."""
    scene = Image.fromarray(generate_scene(0, number, size=SIDE).image)
    for y, x in product(range(0, SIDE, SIZE), repeat=2):
        path = folder / f"{number:06d}-{y:03d}-{x:03d}.jpg"
        scene.crop((x, y, x + SIZE, y + SIZE)).save(path, quality=92, comment=SCENE_COMMENT)


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
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): hashlib.sha256(path.read_bytes()).digest() for path in files}


if __name__ == "__main__":
    raise SystemExit(main())

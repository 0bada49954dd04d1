"""Builds an index on two gloo ranks, forked from one process with torchrun's variables.

Run as a script: ``index_ranks.py FOLDER``, the folder holding ``images/0.jpg`` to ``15.jpg``.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from pixel_images import PixelEncoder, list_images

from hardmine.distributed import RankGroup
from hardmine.encoders.base import DenseFeatures
from hardmine.index import build_index, update_index


class FailingEncoder(PixelEncoder):
    """Runs out of memory on rank 1."""

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Raise an error."""
        assert dist.get_rank() == 1
        raise RuntimeError("out of memory")


def work(place: Path) -> None:
    """Broadcast from rank 0, build, update, and start a build that fails on one rank."""
    dist.init_process_group("gloo")
    with RankGroup() as ranks:
        assert ranks.on_rank_zero(dist.get_rank) == 0
        try:
            ranks.on_rank_zero(lambda: 1 // dist.get_rank())
        except Exception as error:
            name = type(error).__name__
            (place / f"broadcast-{dist.get_rank()}").write_text(f"{name}: {error}")
    files = place / "images"
    images = list_images(files, range(13))
    out = place / "out"
    build_index(images, PixelEncoder(), out, clusters="kmeans:2", shard_size=3, batch_size=2)
    images = list_images(files, range(2, 16))
    update_index(out, images, PixelEncoder(), shard_size=3, batch_size=2)
    try:
        # One shard a rank; the image of rank 0 is broken, so that rank has nothing to encode.
        build_index(list_images(files, (5, 1)), FailingEncoder(), place / "bad", shard_size=1)
    except Exception as error:
        (place / f"error-{dist.get_rank()}").write_text(str(error))
    # A group left over can abort the process as it exits.
    assert len(dist.distributed_c10d._world.pg_map) == 1
    dist.destroy_process_group()


def fork_ranks(work: Callable[[], None]) -> int:
    """Fork two ranks, wait for them and return how many failed."""
    torch.set_num_threads(1)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    children = []
    for rank in range(2):
        os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
        if child := os.fork():
            children.append(child)
            continue
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(f"rank {rank}: {type(error).__name__}: {error}", file=sys.stderr)
            os._exit(1)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.exit(fork_ranks(lambda: work(place)))

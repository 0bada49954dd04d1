"""Real process groups (gloo): the sampler finds its place by itself and all ranks agree."""

from __future__ import annotations

import json
import multiprocessing
import socket
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch.distributed
import torch.multiprocessing

from hardmine.sampler import HardMiningSampler

NUM_IMAGES = 1003


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def weights() -> np.ndarray:
    return np.random.default_rng(5).uniform(1, 4, NUM_IMAGES)


def one_rank(rank: int, world_size: int, port: int, folder: str) -> None:
    """Draw an epoch plainly, half of one by weight, and the rest from a saved state."""
    torch.set_num_threads(1 + rank)  # the stream must not depend on it
    sampler = HardMiningSampler(NUM_IMAGES, seed=2)  # made before the group exists
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world_size
    )
    drawn = [list(sampler)]
    sampler.set_weights(weights())
    running = iter(sampler)
    drawn.append(list(islice(running, 100)))
    states: list[object] = [sampler.state_dict() if rank == 0 else None]
    torch.distributed.broadcast_object_list(states)
    again = HardMiningSampler(NUM_IMAGES, seed=2)
    again.load_state_dict(states[0])
    drawn.append(list(again))
    assert drawn[-1] == list(running)
    Path(folder, f"{rank}.json").write_text(json.dumps(drawn))
    torch.distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 4])
def test_ranks_share_one_stream_and_one_state(world_size: int, tmp_path: Path) -> None:
    # The server imports torch once; ranks fork from it before any thread has run.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["hardmine.sampler"])
    torch.multiprocessing.start_processes(
        one_rank,
        (world_size, free_port(), str(tmp_path)),
        nprocs=world_size,
        start_method="forkserver",
    )
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(world_size)]
    alone = HardMiningSampler(NUM_IMAGES, seed=2)
    plain = list(alone)
    alone.set_weights(weights())
    weighted = list(alone)
    for stream, parts in (
        (plain, [rank[0] for rank in ranks]),
        (weighted, [rank[1] + rank[2] for rank in ranks]),
    ):
        together = [image for row in zip(*parts, strict=True) for image in row]
        assert together[:NUM_IMAGES] == stream
        # 1003 images do not divide: the stream goes on from its own start.
        assert together[NUM_IMAGES:] == stream[: -NUM_IMAGES % world_size]

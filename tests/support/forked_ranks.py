"""Ranks on this machine, with the environment that torchrun gives them.

They are forked from a process that has imported the trainers already, which takes as long as a
training of these tests.
"""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable


def run_ranks(work: Callable[[], None], world_size: int = 2) -> None:
    """Run a function in each rank; exits with an error if one of them fails.

    Nothing may have been computed before: threads do not outlive a fork.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
        GROUP_RANK="0",
        TORCHELASTIC_RUN_ID="test",
    )
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=_one_rank, args=(work, rank)) for rank in range(world_size)]
    for rank in ranks:
        rank.start()
    for rank in ranks:
        rank.join()
        if rank.exitcode:
            for other in ranks:
                other.kill()
            raise SystemExit(1)


def _one_rank(work: Callable[[], None], rank: int) -> None:
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank))
    work()
    # A normal exit aborts if a gloo thread, kept alive by the model's group, frees its last tensor
    # during interpreter shutdown.
    os._exit(0)

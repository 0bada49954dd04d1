"""Searches over two Ray actors that hold the parts of an index, one of which is killed.

Run as a script: ``sharded_ray.py FOLDER``, the folder as ``joined_weeks.make_weeks`` leaves it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
from joined_weeks import require_same_answers
from pixel_images import PixelEncoder

from hardmine import open_index
from hardmine.errors import HardmineError, InputError
from hardmine.index.sharded.holder import Holder
from hardmine.index.sharded.index import ShardedIndex
from hardmine.index.sharded.on_ray import open_on_ray


def process_of(index: ShardedIndex, number: int) -> int:
    """Process id of an actor."""
    return int(in_actor(index, number, lambda holder: os.getpid()))


def in_actor(index: ShardedIndex, number: int, ask: Callable[[Holder], Any]) -> Any:
    """What a function gives inside an actor."""
    handle = index._workers[number]._handle  # type: ignore[attr-defined]
    return ray.get(handle.__ray_call__.remote(ask))


def wait_until_gone(process: int) -> None:
    """Wait for a process to end, at most a minute."""
    for _ in range(1200):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise TimeoutError(f"process {process} is still there")


def main(folder: Path) -> None:
    """Ask everything, kill an actor, ask again and as another training, and end them."""
    path, whole = folder / "all.hmx", open_index(folder / "whole.hmx")
    with pytest.raises(InputError, match="not connected"):
        open_on_ray(path, actors=2)
    ray.init(
        "local",  # not a cluster that happens to run on this machine
        num_cpus=2,
        num_gpus=1,  # as declared: Ray looks for none
        object_store_memory=80_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    with pytest.raises(InputError, match="at least 1 process"):
        open_on_ray(path, actors=0)
    index = open_on_ray(path, actors=2, encoder=PixelEncoder(), num_cpus=0.5)
    require_same_answers(index, whole)
    before = [process_of(index, number) for number in (0, 1)]
    os.kill(before[1], signal.SIGKILL)
    require_same_answers(index, whole)
    other = open_on_ray(path, actors=2, num_cpus=0.5)
    assert process_of(other, 0) == before[0]
    assert process_of(other, 1) != before[1]
    last = process_of(other, 0)
    index.close()
    wait_until_gone(last)  # Ray does not wait for it
    with pytest.raises(HardmineError, match="an actor of the index failed"):
        other.mean_vectors()
    if torch.cuda.is_available():
        one = open_on_ray(path, actors=1, num_cpus=0.5, num_gpus=1)
        assert in_actor(one, 0, lambda holder: ray.get_gpu_ids()) == [0]
        assert in_actor(one, 0, lambda holder: holder._index.device.type) == "cuda"
    else:
        with pytest.raises(HardmineError, match="device 'cuda' is not here"):
            open_on_ray(path, actors=1, num_cpus=0.5, num_gpus=1)
    ray.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

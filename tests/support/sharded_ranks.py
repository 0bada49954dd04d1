"""Searches and mines over two gloo ranks, each of which holds some of the parts of an index.

Run as a script: ``sharded_ranks.py FOLDER``, the folder as ``joined_weeks.make_weeks`` leaves it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from index_ranks import fork_ranks
from joined_weeks import all_images, require_same_answers
from pixel_images import PixelEncoder

from hardmine import HardMiner, HardMiningSampler, open_index
from hardmine.errors import HardmineError, IndexMismatch
from hardmine.index.sharded.over_ranks import open_over_ranks


def work(folder: Path) -> None:
    """Ask everything, mine a round, ask what cannot be answered, and open what does not fit."""
    dist.init_process_group("gloo")
    images, encoder = all_images(folder), PixelEncoder()
    rank = dist.get_rank()
    with open_over_ranks(folder / "all.hmx", encoder=encoder) as index:
        assert (index is None) == (rank > 0)
        miner = HardMiner(index, HardMiningSampler(20), encoder=encoder, images=images, strict=True)
        done = miner.step({"a": 0.7, "b": 0.1})
        if index is not None:
            whole = open_index(folder / "whole.hmx")
            require_same_answers(index, whole)
            assert len(index._workers) == 2
            with pytest.raises(HardmineError, match="rank 1 could not search its part: InputErr"):
                index._workers[1].ask("search", "no vectors", 3)()
            index._workers[1].ask("mean_vectors")  # nobody waits for the answer
            require_same_answers(index, whole)
            np.save(folder / "weights.npy", done.weights)
    try:
        with open_over_ranks(folder / "all.hmx", encoder=PixelEncoder(1)):
            raise AssertionError
    except IndexMismatch:
        (folder / f"refused-{rank}").touch()
    # A group left over can abort the process as it exits.
    assert len(dist.distributed_c10d._world.pg_map) == 1
    dist.destroy_process_group()


if __name__ == "__main__":
    place = Path(sys.argv[1])
    sys.exit(fork_ranks(lambda: work(place)))

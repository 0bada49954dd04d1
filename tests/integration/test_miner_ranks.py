"""HardMiner under torch.distributed: rank 0 mines, every rank gets the same weights."""

from __future__ import annotations

import multiprocessing
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))  # for the spawned ranks

from toy_data import WordEncoder, make_toy_data

from hardmine import HardMiner, HardMiningSampler
from hardmine.errors import HardmineError, InputError

METRICS = {"car": 0.6, "fork": 0.2, "zebra": 0.45}


class Failing(WordEncoder):
    """Raises what cannot be sent to another process."""

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        error = HardmineError("no text tower")
        error.culprit = lambda: self  # type: ignore[attr-defined]
        raise error


def _rank(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size
    )
    toy = make_toy_data(101)
    sampler = HardMiningSampler(len(toy.images), seed=5)
    first = rank == 0
    miner = HardMiner(
        toy.index if first else None,
        sampler,
        encoder=WordEncoder() if first else None,
        images=toy.images,
        rounds=f"{folder}/rounds.jsonl",
    )
    # Only rank 0 knows the metrics.
    done = miner.step(METRICS if first else None)
    draws = list(sampler)
    after_failure = miner.step({"unicorn": 1.0})
    strict = HardMiner(
        toy.index if first else None,
        encoder=Failing() if first else None,
        images=toy.images,
        strict=True,
    )
    raised = ""
    try:
        strict.step(METRICS)
    except HardmineError as error:
        raised = str(error)
    state = miner.state_dict()
    assert (done.result is not None) == first
    refused = ""
    try:
        HardMiner(
            toy.index if first else None,
            HardMiningSampler(101 + rank),
            encoder=WordEncoder() if first else None,
            images=toy.images,
        )
    except InputError as error:
        refused = str(error)
    assert refused == (
        "HardMiner must be the same on every rank: num_images is 101 on rank 0 and 102 on rank 1"
    )
    try:
        HardMiner(None, sampler, encoder=None, images=toy.images)
    except HardmineError as error:
        refused = str(error)
    assert "rank 0 mines and needs index and encoder" in refused
    dist.barrier()
    torch.save(
        {
            "weights": torch.from_numpy(np.array(sampler.weights)),
            "draws": draws,
            "digest": done.digest,
            "failed": after_failure.error,
            "raised": raised,
            "number": state["number"],
            "state_weights": state["weights"],
        },
        f"{folder}/{rank}.pt",
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_ranks_get_the_same_weights_and_share_the_stream(
    world_size: int, tmp_path: Path
) -> None:
    # The server imports torch once; ranks fork from it before any thread has run.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["hardmine.miner"])
    mp.start_processes(
        _rank,
        args=(world_size, str(tmp_path)),
        nprocs=world_size,
        start_method="forkserver",
    )
    ranks = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(world_size)]
    toy = make_toy_data(101)
    alone = HardMiner(toy.index, encoder=WordEncoder(), images=toy.images).step(METRICS)
    for rank in ranks:
        assert np.array_equal(rank["weights"].numpy(), alone.weights)
        assert torch.equal(rank["state_weights"], ranks[0]["weights"])
        assert rank["digest"] == alone.digest
        assert "unicorn" in rank["failed"]
        assert "no text tower" in rank["raised"]
        assert rank["number"] == 2
    whole = HardMiningSampler(101, seed=5, rank=0, world_size=1)
    whole.set_weights(alone.weights)
    drawn = sorted(image for rank in ranks for image in rank["draws"])
    stream = list(whole)
    stream += stream[: -len(stream) % world_size]
    assert drawn == sorted(stream)
    assert len((tmp_path / "rounds.jsonl").read_text().splitlines()) == 2

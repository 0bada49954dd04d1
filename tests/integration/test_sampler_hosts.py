"""Trainers that shard what a sampler draws: Accelerate and Lightning, on two real processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.multiprocessing
from torch.utils.data import DataLoader, Dataset, IterableDataset

from hardmine.errors import InputError
from hardmine.sampler import HardMiningSampler

NUM_IMAGES = 200


class Rows(Dataset[int]):
    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, row: int) -> int:
        return row


def draw(loader: Any) -> list[int] | str:
    """All rows of an epoch, or why there are none."""
    try:
        return [row for batch in loader for row in batch.tolist()]
    except InputError as error:
        return str(error)


def one_rank(rank: int, folder: str) -> None:
    from accelerate import Accelerator
    from lightning.fabric.utilities.distributed import DistributedSamplerWrapper

    torch.set_num_threads(1)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2", ACCELERATE_USE_CPU="1")
    # Accelerate wants to know an address, and uses the group that is there.
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1")
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    accelerator = Accelerator(cpu=True)
    drawn: dict[str, Any] = {}
    for sharded_by in ("sampler", "host"):
        sampler = HardMiningSampler(NUM_IMAGES, sharded_by=sharded_by)
        loader = accelerator.prepare(DataLoader(Rows(), 4, sampler=sampler))
        drawn[f"accelerate-{sharded_by}"] = draw(loader)
        sampler = HardMiningSampler(NUM_IMAGES, sharded_by=sharded_by)
        wrapped = DistributedSamplerWrapper(sampler, num_replicas=2, rank=rank, shuffle=False)
        drawn[f"lightning-{sharded_by}"] = draw(DataLoader(Rows(), 4, sampler=wrapped))
    # Nobody else shards, and the sampler is told not to.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        drawn["alone"] = draw(
            DataLoader(Rows(), 4, sampler=HardMiningSampler(9, sharded_by="host"))
        )
    drawn["said"] = [str(each.message) for each in caught if each.category is RuntimeWarning]
    # Nobody else shards: the sampler does.
    drawn["plain"] = draw(DataLoader(Rows(), 4, sampler=HardMiningSampler(NUM_IMAGES)))
    Path(folder, f"{rank}.json").write_text(json.dumps(drawn))
    torch.distributed.destroy_process_group()


def test_sharding_twice_is_refused_and_the_hosts_form_shows_every_image(tmp_path: Path) -> None:
    # The server imports torch once; ranks fork from it before any thread has run.
    multiprocessing.get_context("forkserver").set_forkserver_preload(["hardmine.sampler"])
    torch.multiprocessing.start_processes(
        one_rank, (str(tmp_path),), nprocs=2, start_method="forkserver"
    )
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    for rank in ranks:
        for host, owner in (("accelerate", "BatchSamplerShard"), ("lightning", "SamplerWrapper")):
            message = rank[f"{host}-sampler"]
            assert owner in message
            assert 'sharded_by="host"' in message
        assert sorted(rank["alone"]) == list(range(9))
        assert ["each of 2 ranks may draw all images" in said for said in rank["said"]] == [True]
    for name in ("accelerate-host", "lightning-host", "plain"):
        assert sorted(ranks[0][name] + ranks[1][name]) == list(range(NUM_IMAGES)), name


class FromSampler(IterableDataset[Any]):
    """A data set that iterates the sampler inside its workers, as detectron2's does."""

    def __init__(self, sampler: HardMiningSampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Any:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            rows = list(self.sampler)
        yield len(rows)
        yield from (str(each.message) for each in caught)


def test_a_sampler_inside_a_worker_says_that_weights_never_arrive() -> None:
    data = FromSampler(HardMiningSampler(5))
    drawn, message = DataLoader(data, batch_size=None, num_workers=1)
    assert drawn == 5
    assert "inside a DataLoader worker" in message
    assert "new weights never arrive; make the loader's iterator anew" in message
    assert list(DataLoader(data, batch_size=None)) == [5]

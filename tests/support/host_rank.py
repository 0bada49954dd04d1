"""Distributed trainings in some trainers, one after the other, on two ranks."""

from __future__ import annotations

import importlib
import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402
from forked_ranks import run_ranks  # noqa: E402

MORE = {
    "lightning": {"strategy": "ddp", "devices": 2},
    "transformers": {"ddp_backend": "gloo"},
    # The default would put the model on a GPU.
    "mmdet": {
        "launcher": "pytorch",
        "model_wrapper_cfg": {"type": "MMDistributedDataParallel", "device_ids": None},
    },
}


def one_rank(scenes: Path, work: Path, hosts: list[str]) -> None:
    """Train for two epochs in each trainer and write what this rank drew to files."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    for host in hosts:
        folder = work / host
        folder.mkdir(exist_ok=True)
        train = importlib.import_module(f"host_{host}").train
        trained = train(scenes, folder, **MORE.get(host, {}))
        (folder / f"rank{rank}.json").write_text(json.dumps(trained.batches))
        torch.distributed.barrier()


def main(scenes: Path, work: Path, hosts: list[str]) -> None:
    """Import the trainers, then train on two ranks."""
    for host in hosts:
        importlib.import_module(f"host_{host}")
    run_ranks(lambda: one_rank(scenes, work, hosts))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])

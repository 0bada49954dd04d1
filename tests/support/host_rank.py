"""One rank of distributed trainings in some trainers; torchrun starts several of these."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402

MORE = {"lightning": {"strategy": "ddp", "devices": 2}, "transformers": {"ddp_backend": "gloo"}}


def main(scenes: Path, work: Path, hosts: list[str]) -> None:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
    # A normal exit aborts if a gloo thread, kept alive by the model's group, frees its last tensor
    # during interpreter shutdown.
    os._exit(0)

"""One rank of a distributed training in some trainer; torchrun starts several of these."""

from __future__ import annotations

import importlib
import json
import os
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402


def main(host: str, scenes: Path, work: Path) -> None:
    """Train for two epochs and write what this rank drew to a file."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")
    more = {"strategy": "ddp", "devices": 2} if host == "lightning" else {"ddp_backend": "gloo"}
    trained = importlib.import_module(f"host_{host}").train(scenes, work, **more)
    rank = torch.distributed.get_rank()
    (work / f"rank{rank}.json").write_text(json.dumps(trained.batches))
    torch.distributed.barrier()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    # A normal exit aborts if a gloo thread, kept alive by the model's group, frees its last tensor
    # during interpreter shutdown.
    os._exit(0)

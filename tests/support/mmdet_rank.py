"""A distributed MMDetection run on two ranks."""

from __future__ import annotations

import contextlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

warnings.simplefilter("ignore")

import mmdet_noisy  # noqa: E402, F401 - registers NoisyDetector
import torch  # noqa: E402
from forked_ranks import run_ranks  # noqa: E402
from mmdet_case import Recorder, config, make_runner  # noqa: E402
from mmengine.logging import MessageHub  # noqa: E402
from pixel_images import PixelEncoder  # noqa: E402

import hardmine_mmdet.safe_checkpoints  # noqa: E402, F401 - to resume on torch 2.6 and later
from hardmine_mmdet import HardMiningHook  # noqa: E402


def train(root: Path, work: Path, **more: Any) -> Recorder:
    """Train with mining; returns a recorder of this rank's draws."""
    settings = config(
        root / "train",
        root / "val",
        work,
        custom_hooks=[],
        launcher="pytorch",
        # The default would put the model on a GPU.
        model_wrapper_cfg={"type": "MMDistributedDataParallel", "device_ids": None},
        **more,
    )
    recorder = Recorder()
    runner = make_runner(settings, recorder)
    miner = {
        "contexts": ("at night",),
        "need": {"policy": "below:0.9"},
        "weights": {"cap": 8.0},
    }
    runner.register_hook(
        HardMiningHook(encoder=PixelEncoder(), clusters="kmeans:4+whole", miner=miner)
    )
    runner.train()
    return recorder


def train_by_iterations(root: Path) -> dict[str, Any]:
    """Train for eight iterations in batches of one shape, then resume from the fourth."""
    more = {
        "model": {"type": "NoisyDetector"},
        "train_cfg": {"type": "IterBasedTrainLoop", "max_iters": 8, "val_interval": 4},
        "train_dataloader.sampler": {"type": "HardMiningSampler", "infinite": True},
        "train_dataloader.batch_sampler": {"type": "AspectRatioBatchSampler"},
        "default_hooks.checkpoint": {"type": "CheckpointHook", "by_epoch": False, "interval": 4},
    }
    uninterrupted = train(root, root / "work", **more)
    MessageHub._instance_dict.clear()
    (root / "resumed").mkdir(exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (root / "resumed" / "hardmine").symlink_to(root / "work" / "hardmine")
    checkpoint = str(root / "work" / "iter_4.pth")
    resumed = train(root, root / "resumed", resume=True, load_from=checkpoint, **more)
    return {"drawn": uninterrupted.batches, "resumed": resumed.batches}


def one_rank(root: Path) -> None:
    """Train and write what this rank drew to a file."""
    torch.set_num_threads(1)
    # mmengine would pick a GPU whatever the backend; it accepts a process group made before.
    torch.distributed.init_process_group("gloo")
    drawn = train_by_iterations(root)
    (root / f"rank{torch.distributed.get_rank()}.json").write_text(json.dumps(drawn))
    torch.distributed.barrier()


if __name__ == "__main__":
    run_ranks(lambda: one_rank(Path(sys.argv[1])))

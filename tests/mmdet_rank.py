"""One rank of a distributed MMDetection run; torchrun starts several of these."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

warnings.simplefilter("ignore")

import torch  # noqa: E402
from mmdet_case import Recorder, config, make_runner  # noqa: E402
from pixel_images import PixelEncoder  # noqa: E402

from hardmine_mmdet import HardMiningHook  # noqa: E402


def main(root: Path) -> None:
    """Train two epochs and write down what this rank drew."""
    torch.set_num_threads(1)
    # mmengine's own start picks a GPU whatever the backend; it accepts one that was made before.
    torch.distributed.init_process_group("gloo")
    settings = config(
        root / "train",
        root / "val",
        root / "work",
        custom_hooks=[],
        launcher="pytorch",
        # The default would put the model on a GPU.
        model_wrapper_cfg={"type": "MMDistributedDataParallel", "device_ids": None},
    )
    recorder = Recorder()
    runner = make_runner(settings, recorder)
    miner = {"policy": "below:0.9", "budget": None, "cap": 8.0}
    runner.register_hook(
        HardMiningHook(encoder=PixelEncoder(), clusters="kmeans:4+whole", miner=miner)
    )
    runner.train()
    drawn = [list(batch) for batch in recorder.batches]
    (root / f"rank{runner.rank}.json").write_text(json.dumps(drawn))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

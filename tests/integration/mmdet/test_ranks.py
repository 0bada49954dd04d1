"""Two processes that train by iterations keep their own images that wait for a batch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """Training by iterations in two processes: its folder and what each drew."""
    root = tmp_path_factory.mktemp("ranks")
    for name, folder in zip(("train", "val"), scenes, strict=True):
        (root / name).symlink_to(folder)
    environment = os.environ | {
        "PYTHONPATH": str(SUPPORT),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "mmdet_rank.py"), str(root)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return root, [json.loads((root / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_each_process_keeps_its_waiting_images(trained) -> None:
    """Batches of one shape fill up at different times in each process."""
    root, ranks = trained
    state = torch.load(root / "work" / "hardmine" / "states" / "iter_4.pth", weights_only=True)
    first, second = (each["waiting"] for each in state["samplers"])
    assert first != second
    for each in ranks:
        assert len(each["drawn"]) == 8
        assert each["resumed"] == each["drawn"][4:]

"""Two processes share one index, one round and one stream of images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardmine.history import read_rounds
from hardmine.index import open_index

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def trained(scenes, tmp_path_factory) -> tuple[Path, list[dict[str, Any]]]:
    """Training by epochs and by iterations in two processes: its folder and what each drew."""
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


def test_two_processes(trained) -> None:
    root, ranks = trained
    drawn = [rank["epochs"] for rank in ranks]
    batches = len(drawn[0]) // 2
    first = Counter(image for rank in drawn for batch in rank[:batches] for image in batch)
    assert set(first.values()) == {1}
    assert len(first) == 24
    work = root / "epochs" / "hardmine"
    rounds = read_rounds(work / "rounds.jsonl")
    assert [each.number for each in rounds] == [1, 2]
    assert not any(each.error for each in rounds)
    assert len(open_index(work / "val-index.hmx").ids) == 8
    state = torch.load(work / "states" / f"iter_{batches}.pth", weights_only=True)
    weights = state["miner"]["weights"].numpy()
    second = Counter(image for rank in drawn for batch in rank[batches:] for image in batch)
    counts = np.array([second[1000 + 3 * row] for row in range(24)])
    expected = 24 * weights / weights.sum()
    assert expected.max() > 1.2
    assert (np.abs(counts - expected) < 1).all()


def test_each_process_keeps_its_waiting_images(trained) -> None:
    """Batches of one shape fill up at different times in each process."""
    root, ranks = trained
    state = torch.load(root / "work" / "hardmine" / "states" / "iter_4.pth", weights_only=True)
    first, second = (each["waiting"] for each in state["samplers"])
    assert first != second
    for each in ranks:
        assert len(each["drawn"]) == 8
        assert each["resumed"] == each["drawn"][4:]

"""An index over several processes answers as one index does, and a miner runs over it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from joined_weeks import Weeks, make_weeks
from pixel_images import PixelEncoder

from hardmine import HardMiner, HardMiningSampler

ROOT = Path(__file__).resolve().parents[2]
SUPPORT = ROOT / "tests" / "support"
PYTHONPATH = os.pathsep.join([str(ROOT), str(SUPPORT)])


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    return make_weeks(tmp_path_factory.mktemp("weeks"))


def weights_of(weeks: Weeks) -> np.ndarray:
    """Weights of a round over the one index."""
    miner = HardMiner(
        weeks.whole,
        HardMiningSampler(20),
        encoder=PixelEncoder(),
        images=weeks.images,
        strict=True,
    )
    return miner.step({"a": 0.7, "b": 0.1}).weights


def run_script(name: str, weeks: Weeks) -> None:
    """Run a script of the support folder over the weeks."""
    done = subprocess.run(
        [sys.executable, str(SUPPORT / name), str(weeks.folder)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH, "RAY_USAGE_STATS_ENABLED": "0"},
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_ranks_answer_and_mine_like_one_process(weeks: Weeks) -> None:
    run_script("sharded_ranks.py", weeks)
    np.testing.assert_array_equal(np.load(weeks.folder / "weights.npy"), weights_of(weeks))
    assert (weeks.folder / "refused-1").exists()


def test_ray_actors_answer_like_one_process_also_after_one_was_killed(weeks: Weeks) -> None:
    pytest.importorskip("ray")
    run_script("sharded_ray.py", weeks)

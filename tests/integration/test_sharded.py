"""An index over several processes answers as one index does, and a miner runs over it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from joined_weeks import Weeks, make_weeks, require_same_answers
from pixel_images import PixelEncoder

from hardmine import HardMiner, HardMiningSampler
from hardmine.errors import HardmineError, InputError

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


def test_ranks_answer_and_mine_like_one_process(weeks: Weeks) -> None:
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "sharded_ranks.py"), str(weeks.folder)],
        env=os.environ | {"PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(np.load(weeks.folder / "weights.npy"), weights_of(weeks))
    assert (weeks.folder / "refused-1").exists()


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    ray = pytest.importorskip("ray")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", PYTHONPATH)
    ray.init(
        num_cpus=2,
        object_store_memory=80_000_000,
        include_dashboard=False,
        log_to_driver=False,
    )
    yield
    ray.shutdown()


@pytest.mark.usefixtures("cluster")
def test_ray_actors_answer_like_one_process_also_after_one_was_killed(weeks: Weeks) -> None:
    from hardmine.index.sharded.on_ray import open_on_ray

    path = weeks.folder / "all.hmx"
    index = open_on_ray(path, actors=2, encoder=PixelEncoder(), num_cpus=0.5)
    require_same_answers(index, weeks.whole)
    before = [process_of(worker) for worker in index._workers]
    os.kill(before[1], signal.SIGKILL)
    require_same_answers(index, weeks.whole)
    # Another training asks the same actors.
    other = open_on_ray(path, actors=2, num_cpus=0.5)
    after = [process_of(worker) for worker in other._workers]
    assert after[0] == before[0]
    assert after[1] != before[1]
    index.close()
    with pytest.raises(HardmineError, match="an actor of the index failed"):
        other.mean_vectors()
    with pytest.raises(InputError, match="at least 1 process"):
        open_on_ray(path, actors=0)


def process_of(worker: Any) -> int:
    """Process id of an actor."""
    import ray

    return int(ray.get(worker._handle.__ray_call__.remote(lambda holder: os.getpid())))

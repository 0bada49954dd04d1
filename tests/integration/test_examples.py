"""Every example runs as a user would run it, at its smallest size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hardmine.history.rounds import read_rounds

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(out: Path, name: str, *launcher: str) -> str:
    command = [sys.executable, *launcher, str(EXAMPLES / name), "--quick", "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def test_every_example_is_short_and_stands_here() -> None:
    numbered = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))
    assert [name[0] for name in numbered] == ["1", "2", "3", "4", "5"]
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path.name


@pytest.mark.slow
def test_a_plain_loop_mines_between_epochs(tmp_path: Path) -> None:
    said = run(tmp_path, "1_training_loop.py")
    rounds = read_rounds(tmp_path / "rounds.jsonl")
    assert [done.number for done in rounds] == [1, 2]
    assert all(done.applied and done.drawn.num_raised > 0 for done in rounds if done.drawn)
    assert "round 2: " in said
    assert "need 1.00 × strength" in said


@pytest.mark.slow
def test_two_processes_draw_by_one_set_of_weights(tmp_path: Path) -> None:
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    said = run(tmp_path, "2_torchrun.py", *launcher)
    assert "2 ranks, 1 set of weights" in said
    assert len(read_rounds(tmp_path / "rounds.jsonl")) == 2


@pytest.mark.slow
def test_a_resumed_run_goes_on_with_the_next_image(tmp_path: Path) -> None:
    said = run(tmp_path, "3_resume.py")
    assert "as if never stopped: True" in said
    assert "round 2: " in said


@pytest.mark.slow
def test_an_encoder_of_ones_own_is_searched_and_mined(tmp_path: Path) -> None:
    said = run(tmp_path, "4_own_encoder.py")
    assert "red: train/images/" in said
    assert "dark " in said


@pytest.mark.slow
def test_a_pool_without_labels_says_what_to_label_next(tmp_path: Path) -> None:
    said = run(tmp_path, "5_unlabelled_pool.py")
    assert "label next" in said
    assert "hits in the pool" in said

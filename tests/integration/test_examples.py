"""Every example runs as a user would run it, on a few images."""

from __future__ import annotations

import json
import logging
import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hardmine.history import read_rounds

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture
def run(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> Callable[[str], str]:
    """Runs an example as a script in this process, and returns what it printed and logged."""

    def run_example(name: str) -> str:
        monkeypatch.setattr(sys, "path", [str(EXAMPLES), *sys.path])
        monkeypatch.setattr(sys, "argv", [name, "--quick", "--out", str(tmp_path)])
        with caplog.at_level(logging.INFO):
            runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out + caplog.text

    return run_example


def test_there_are_six_short_examples() -> None:
    numbered = sorted(path.name for path in EXAMPLES.glob("[0-9]*.py"))
    assert [name[0] for name in numbered] == ["1", "2", "3", "4", "5", "6"]
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path.name


def test_a_plain_loop_mines_between_epochs(run, tmp_path: Path) -> None:
    output = run("1_training_loop.py")
    rounds = read_rounds(tmp_path / "rounds.jsonl")
    assert [done.number for done in rounds] == [1, 2]
    assert all(done.draws.num_raised > 0 for done in rounds)
    assert "round 2: " in output
    assert "need 1.00 × strength" in output


@pytest.mark.slow
def test_two_processes_share_one_set_of_weights(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", "2", str(EXAMPLES / "2_torchrun.py")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(
        [*command, "--quick", "--out", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=600,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 ranks, 1 set of weights" in done.stdout
    assert len(read_rounds(tmp_path / "rounds.jsonl")) == 2


def test_a_resumed_run_continues_with_the_next_image(run, tmp_path: Path) -> None:
    output = run("3_resume.py")
    assert "same as without interruption: True" in output
    assert "round 2: " in output


def test_a_custom_encoder_is_searched_and_mined(run, tmp_path: Path) -> None:
    output = run("4_own_encoder.py")
    assert "red: train/images/" in output
    assert "dark " in output


def test_an_unlabelled_pool_is_ranked_for_labelling(run, tmp_path: Path) -> None:
    output = run("5_unlabelled_pool.py")
    assert "label next" in output
    assert "hits in the pool" in output


def test_a_round_goes_to_loggers_and_labelling_tools(run, tmp_path: Path) -> None:
    output = run("6_other_tools.py")
    tasks = json.loads((tmp_path / "tasks.json").read_text())
    number = sum(len(task["predictions"][0]["result"]) for task in tasks)
    assert number > 0
    assert f"{number} regions written to {tmp_path / 'tasks.json'} for labelstudio" in output
    boxes = ElementTree.parse(tmp_path / "annotations.xml").findall("image/box")
    assert len(boxes) == number

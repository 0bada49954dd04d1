"""``hardmine bench training`` runs through and continues from recorded runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hardmine.bench.runs import open_setup
from hardmine.bench.strategies import STRATEGIES, StrategySampler
from hardmine.cli.bench import QUICK


def bench(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hardmine.cli.main", "bench", "training", "--quick"]
    command += ["--work", str(folder), "--jobs", "1", "--seeds", "1", *options]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    done = bench(folder, "--scenario", "night", "--strategy", "uniform", "--strategy", "hardmine")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def test_it_prints_and_writes_a_table(finished) -> None:
    folder, stdout = finished
    assert "night" in stdout
    assert "hardmine" in stdout
    report = json.loads((folder / "training.json").read_text())
    assert [result["strategy"] for result in report["scenarios"]["night"]["results"]] == [
        "uniform",
        "hardmine",
    ]
    assert "| hardmine |" in (folder / "training.md").read_text()


def test_all_strategies_continue_from_the_same_detector(finished) -> None:
    folder, _ = finished
    runs = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    assert {run["strategy"] for run in runs} == {"uniform", "hardmine"}
    assert len({json.dumps(run["warmup_ap"]) for run in runs}) == 1
    assert runs[0]["mining_seconds"] == 0 < runs[1]["mining_seconds"]


def test_a_strategy_counts_the_draws_of_the_warmup(
    finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, _ = finished
    # open_setup limits its process to one thread; this process is not its own.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    setup = open_setup("night", folder, QUICK)
    drawing = StrategySampler(
        STRATEGIES["hardmine"],
        setup.scenario,
        setup.encoder,
        epoch_length=QUICK.epoch_length,
        epoch=3,
    )
    assert len(drawing.draw_epoch()) == QUICK.epoch_length
    assert drawing.sampler.epoch == 4


def test_a_second_call_runs_only_what_is_missing(finished) -> None:
    folder, _ = finished
    before = (folder / "training.jsonl").read_text()
    done = bench(
        folder, "--scenario", "night", "--strategy", "uniform", "--strategy", "whole-image"
    )
    assert done.returncode == 0, done.stderr
    after = (folder / "training.jsonl").read_text()
    assert after.startswith(before)
    (added,) = after[len(before) :].splitlines()
    assert json.loads(added)["strategy"] == "whole-image"


def test_zero_seeds_are_refused(tmp_path) -> None:
    done = bench(tmp_path, "--seeds", "0")
    assert done.returncode == 2
    assert "at least 1" in done.stderr

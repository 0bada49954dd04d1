"""``hardmine bench training`` runs through, and takes up what is on record."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hardmine.bench.runs import open_setup
from hardmine.bench.strategies import STRATEGIES, Drawer
from hardmine.cli.bench import QUICK


def bench(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hardmine.cli.main", "bench", "training", "--quick"]
    command += ["--work", str(folder), "--jobs", "1", "--seeds", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    ran = bench(
        folder, "--scenario", "condition", "--strategy", "uniform", "--strategy", "hardmine"
    )
    assert ran.returncode == 0, ran.stderr
    return folder, ran.stdout


def test_it_prints_and_writes_a_table(done) -> None:
    folder, said = done
    assert "condition" in said
    assert "hardmine" in said
    content = json.loads((folder / "training.json").read_text())
    assert [line["strategy"] for line in content["scenarios"]["condition"]["lines"]] == [
        "uniform",
        "hardmine",
    ]
    assert "| hardmine |" in (folder / "training.md").read_text()


def test_equal_draws_by_every_arm(done) -> None:
    folder, _ = done
    runs = [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]
    assert {run["strategy"] for run in runs} == {"uniform", "hardmine"}
    assert len({json.dumps(run["fork_ap"]) for run in runs}) == 1
    assert runs[0]["mining_seconds"] == 0 < runs[1]["mining_seconds"]


def test_an_arm_knows_what_was_drawn_before_it(done, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, _ = done
    # A run_scenario has a process of its own, and takes one core for it; this one is not.
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    setup = open_setup("condition", folder, QUICK)
    drawer = Drawer(
        STRATEGIES["hardmine"], setup.scenario, setup.encoder, draws=QUICK.draws, epoch=3
    )
    assert drawer.sampler.passes == 3 * QUICK.draws / len(setup.scenario.train)
    assert len(drawer.draw()) == QUICK.draws
    assert drawer.sampler.epoch == 4


def test_a_second_run_adds_only_what_is_missing(done) -> None:
    folder, _ = done
    before = (folder / "training.jsonl").read_text()
    ran = bench(folder, "--scenario", "condition", "--strategy", "uniform", "--strategy", "whole")
    assert ran.returncode == 0, ran.stderr
    after = (folder / "training.jsonl").read_text()
    assert after.startswith(before)
    (added,) = after[len(before) :].splitlines()
    assert json.loads(added)["strategy"] == "whole"


def test_zero_seeds_are_refused(tmp_path) -> None:
    ran = bench(tmp_path, "--seeds", "0")
    assert ran.returncode == 2
    assert "at least 1" in ran.stderr

"""``hardmine bench training`` runs through and continues from recorded runs."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest
import torch

from hardmine.bench.runs import open_setup, run_strategies
from hardmine.bench.strategies import STRATEGIES, StrategySampler
from hardmine.cli.bench import QUICK
from hardmine.cli.main import main


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("bench")
    options = ["--quick", "--work", str(folder), "--jobs", "1", "--seeds", "1"]
    options += ["--scenario", "night", "--strategy", "uniform", "--strategy", "hardmine"]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["bench", "training", *options]) == 0
    return folder, printed.getvalue()


@pytest.fixture(autouse=True)
def threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """``open_setup`` limits its process to one thread; this process is not its own."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)


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


def test_a_strategy_counts_the_draws_of_the_warmup(finished) -> None:
    folder, _ = finished
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
    results = folder / "training.jsonl"
    before = results.read_text()
    strategies = ["uniform", "whole-image"]
    run_strategies("night", 0, strategies, work=folder, results=results, schedule=QUICK)
    after = results.read_text()
    assert after.startswith(before)
    (added,) = after[len(before) :].splitlines()
    assert json.loads(added)["strategy"] == "whole-image"


def test_a_late_strategy_mines_in_the_last_quarter_alone(finished, tmp_path) -> None:
    folder, _ = finished
    results = tmp_path / "late.jsonl"
    names = ["hardmine", "hardmine-late"]
    run_strategies("night", 0, names, work=folder, results=results, schedule=QUICK)
    whole, late = (json.loads(line) for line in results.read_text().splitlines())
    assert (len(whole["val_ap"]), len(late["val_ap"])) == (2, 1)
    assert whole["class_draws"] != late["class_draws"]


def test_zero_seeds_are_refused(tmp_path, capsys) -> None:
    assert main(["bench", "training", "--work", str(tmp_path), "--seeds", "0"]) == 2
    assert "at least 1" in capsys.readouterr().err

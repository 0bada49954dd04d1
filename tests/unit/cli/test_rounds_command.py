"""``hardmine rounds`` on the file of a real run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from toy_data import NAMES, WordEncoder, make_toy_data

from hardmine import HardMiner
from hardmine.cli.main import main


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("run") / "rounds.jsonl"
    scenario = make_toy_data(120)
    miner = HardMiner(scenario.index, encoder=WordEncoder(), images=scenario.images, rounds=file)
    for done, ap in enumerate(([0.6, 0.2, 0.5], [0.6, 0.3, 0.5], [0.6, 0.32, 0.5]), start=1):
        miner.step(dict(zip(NAMES, ap, strict=True)), epochs_done=done, epochs=4, every=1)
    return file


def test_the_table_shows_weak_classes_and_their_gains(
    record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["rounds", str(record)]) == 0
    out = capsys.readouterr().out
    assert "1: fork" in out
    assert "+10.0" in out
    assert "the AP of boosted classes changed by" in out
    assert "what is missed could not be looked at" in out.replace("\n", " ")
    for explained in ("ESS: effective", "weak Δ, rest Δ: change", "missed: how many times as"):
        assert explained in out.replace("\n", " ")


def test_json(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rounds", str(record), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [line["number"] for line in summary["rounds"]] == [1, 2, 3]
    assert summary["rounds"][0]["gain_weak"] == pytest.approx(0.1)
    assert summary["rounds"][2]["gain_weak"] is None
    assert summary["classes"][0]["name"] == "fork"


def test_the_page_is_written(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "rounds.html"
    assert main(["rounds", str(record), "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert str(page) in capsys.readouterr().err.replace("\n", "")
    assert main(["rounds", str(record), "--html", str(record / "rounds.html")]) == 2
    assert f"{record / 'rounds.html'}: cannot be written: " in capsys.readouterr().err


def test_a_missing_or_empty_file_is_an_error_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rounds", str(tmp_path / "none.jsonl")]) == 2
    assert "HardMiner(rounds=...)" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert main(["rounds", str(empty)]) == 2
    assert "HardMiner.step" in capsys.readouterr().err

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
    toy = make_toy_data(120)
    miner = HardMiner(toy.index, encoder=WordEncoder(), images=toy.images, rounds=file)
    for ap in ([0.6, 0.2, 0.5], [0.6, 0.3, 0.5], [0.6, 0.32, 0.5]):
        miner.step(dict(zip(NAMES, ap, strict=True)))
    return file


def test_the_table_says_what_was_weak_and_whether_it_rose(
    record: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    assert main(["rounds", str(record)]) == 0
    said = capsys.readouterr().out
    assert "1: fork" in said
    assert "+10.0" in said
    assert "AP of boosted classes changed by" in said


def test_json_is_read_by_programs(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rounds", str(record), "--json"]) == 0
    history = json.loads(capsys.readouterr().out)
    assert [line["number"] for line in history["rounds"]] == [1, 2, 3]
    assert history["rounds"][0]["gain_weak"] == pytest.approx(0.1)
    assert history["rounds"][2]["gain_weak"] is None
    assert history["classes"][0]["name"] == "fork"


def test_the_page_is_written_where_asked(
    record: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "new" / "rounds.html"
    assert main(["rounds", str(record), "--html", str(page)]) == 0
    assert page.read_text().startswith("<!doctype html>")
    assert str(page) in capsys.readouterr().err.replace("\n", "")


def test_a_missing_or_empty_file_is_an_error_with_advice(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["rounds", str(tmp_path / "none.jsonl")]) == 2
    assert "HardMiner(rounds=...)" in capsys.readouterr().err
    empty = tmp_path / "empty.jsonl"
    empty.touch()
    assert main(["rounds", str(empty)]) == 2
    assert "HardMiner.step" in capsys.readouterr().err

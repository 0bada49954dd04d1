"""A round as a line of JSON: exact, durable, tolerant of a torn end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round, append_round, read_rounds, weights_digest
from hardmine.mining.targets import KINDS
from hardmine.mining.weights import report_weights

NAMES = ("car", "fork")


def make(number: int, ap: tuple[float, float] = (0.5, 0.1), **changes: object) -> Round:
    weights = np.array([1.0, 4.0, 2.5])
    done = Round(
        number=number,
        when="2026-01-02T03:04:05+00:00",
        seconds=0.25,
        class_names=NAMES,
        ap=np.array(ap),
        need=np.array([0.0, 1 / 3]),
        patience=np.ones(2),
        asked=(
            QueryRecord(
                ("fork", "table fork"), "fork", "", 1 / 3, 0.8, 0.8, dict.fromkeys(KINDS, 2)
            ),
            QueryRecord(
                ("fork at night",), "fork", "at night", 0.2, np.nan, 1.0, dict.fromkeys(KINDS, 1)
            ),
        ),
        drawn=report_weights(weights, np.array([[1, 0], [0, 1], [1, 0]])),
        settings={"cap": 4.0, "budget": None},
        digest=weights_digest(weights),
        notes=("<b>",),
        applied=True,
        weights=weights,
    )
    return replace(done, **changes)


def test_a_line_holds_all_but_weights_and_targets(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rounds.jsonl"
    done = make(1, ap=(0.5, np.nan))
    append_round(file, done)
    (read,) = read_rounds(file)
    assert read.to_json() == done.to_json()
    assert read.weights is None
    assert np.array_equal(read.ap, done.ap, equal_nan=True)
    assert read.need.tolist() == done.need.tolist()
    assert read.asked[0] == done.asked[0]
    assert np.isnan(read.asked[1].precision)
    assert read.drawn.quantiles == done.drawn.quantiles
    assert read.weak == ["fork"]
    assert read.counts() == dict.fromkeys(KINDS, 3)
    assert "NaN" not in file.read_text()


def test_a_torn_last_line_is_left_out_and_cut_off_by_the_next(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    append_round(file, make(1))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[: len(whole) // 2])
    assert [done.number for done in read_rounds(file)] == [1]
    append_round(file, make(2))
    assert [done.number for done in read_rounds(file)] == [1, 2]
    assert len(file.read_bytes().splitlines()) == 2


def test_a_file_that_holds_a_torn_line_alone_begins_anew(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    file.write_text('{"number"')
    assert read_rounds(file) == []
    append_round(file, make(1))
    assert len(read_rounds(file)) == 1


def test_rounds_done_again_after_a_resume_count_once(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    for number, seconds in ((1, 1.0), (2, 2.0), (3, 3.0), (2, 20.0)):
        append_round(file, make(number, seconds=seconds))
    assert [(done.number, done.seconds) for done in read_rounds(file)] == [(1, 1.0), (2, 20.0)]


def test_a_broken_line_in_the_middle_is_named(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    append_round(file, make(1))
    file.write_text("[]\n" + file.read_text())
    with pytest.raises(InputError, match="line 1 is not a round"):
        read_rounds(file)
    with pytest.raises(InputError, match="cannot read rounds"):
        read_rounds(tmp_path / "none.jsonl")


def test_the_digest_changes_with_any_weight_but_not_with_the_last_bits() -> None:
    weights = np.array([1.0, 2.0])
    assert weights_digest(weights) == weights_digest(weights + 1e-12)
    assert weights_digest(weights) != weights_digest(weights * 1.0001)


def test_a_line_is_json_that_other_programs_read() -> None:
    record = json.loads(json.dumps(make(1).to_json(), allow_nan=False))
    assert record["format"] == 1
    assert record["asked"][1]["precision"] is None

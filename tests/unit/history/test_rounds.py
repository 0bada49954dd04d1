"""A round as a line of JSON: exact, durable, tolerant of a torn end."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.history.rounds import (
    Round,
    append_round,
    failed_round,
    query_records,
    read_rounds,
    weights_digest,
)
from hardmine.mining.conditions import Condition
from hardmine.mining.density_ratio import DensityRatio
from hardmine.mining.mine import MiningResult, Ratios, RoundInputs
from hardmine.mining.queries import Queries
from hardmine.mining.targets import HARD, KINDS, SUSPECT, TargetRules, Targets
from hardmine.mining.trust import Trust
from hardmine.mining.weights import WeightRules, report_weights

NAMES = ("car", "fork")
PER_IMAGE = {"weights", "result"}


def make(number: int, ap: tuple[float, float] = (0.5, 0.1), **changes: object) -> Round:
    weights = np.array([1.0, 4.0, 2.5])
    queries = Queries(
        phrases=(("fork", "table fork"), ("fork at night",)),
        class_rows=np.array([1, 1]),
        contexts=("", "at night"),
        need=np.array([1 / 3, 0.2]),
    )
    trust = Trust(np.array([0.8, np.nan]), np.array([10, 0]), np.array([0.8, 1.0]))
    targets = Targets(
        np.array([0, 0, 1], np.int32),
        np.array([0, 2, 1]),
        np.array([HARD, SUSPECT, HARD], np.int8),
        np.float32([1, 0, 0.5]),
        np.float32([0.2, 0.3, 0.1]),
    )
    ones = np.ones(3)
    result = MiningResult(trust, targets, ones, ones, weights)
    done = Round(
        number=number,
        time="2026-01-02T03:04:05+00:00",
        seconds=0.25,
        class_names=NAMES,
        inputs=RoundInputs(
            ap=np.array(ap),
            need=np.array([0.0, 1 / 3]),
            queries=queries,
            mistaken_for=((0, 1, 2 / 3), (1, 0, 0.1)),
            context_thresholds={"at night": 0.1},
            ratios=Ratios((0.5, 2.25), DensityRatio((0.1, -1 / 3), 0.7)),
            targets=TargetRules(missing=0.2, templates=("a {}",)),
            weights=WeightRules(cap=2.0),
            num_images=3,
            encoder="words",
            clusters="whole",
        ),
        patience=np.ones(2),
        queries=query_records(queries, result, NAMES),
        draws=report_weights(weights, np.array([[1, 0], [0, 1], [1, 0]])),
        digest=weights_digest(weights),
        conditions=(Condition("at night", 1e-9, 50, 0.6, 0.4, 40, 0.3, 0.2),),
        notes=("<b>",),
        weights=weights,
        result=result,
    )
    return replace(done, **changes)


def test_every_field_of_a_round_survives_but_those_of_one_value_an_image(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "rounds.jsonl"
    done = make(1, ap=(0.5, np.nan))
    append_round(file, done)
    (read,) = read_rounds(file)
    assert set(done.to_json()) == {each.name for each in fields(Round)} - PER_IMAGE | {"format"}
    for each in fields(Round):
        if each.name in PER_IMAGE:
            assert getattr(read, each.name) is None
        elif each.name not in ("inputs", "queries", "draws", "patience"):
            assert getattr(read, each.name) == getattr(done, each.name), each.name
    for each in fields(RoundInputs):
        one, two = getattr(read.inputs, each.name), getattr(done.inputs, each.name)
        if isinstance(two, np.ndarray):
            assert np.array_equal(one, two, equal_nan=True), each.name
        elif isinstance(two, Queries):
            assert (one.phrases, one.contexts) == (two.phrases, two.contexts)
            assert np.array_equal(one.class_rows, two.class_rows)
            assert np.array_equal(one.need, two.need)
        else:
            assert one == two, each.name
    assert read.to_json() == done.to_json()
    assert read.queries[0] == done.queries[0]
    assert np.isnan(read.queries[1].precision)
    assert read.draws.quantiles == done.draws.quantiles
    assert read.weak == ["fork"]
    assert read.counts() == dict.fromkeys(KINDS, 0) | {"hard": 2, "suspect": 1}
    assert done.suspects() == [(2, "fork", pytest.approx(0.3))]
    assert "NaN" not in file.read_text()


def test_a_failed_round_knows_its_classes_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "rounds.jsonl"
    failed = failed_round(3, NAMES, np.ones(3), ValueError("no such class"))
    append_round(file, failed)
    (read,) = read_rounds(file)
    assert read.failed
    assert read.error == "ValueError: no such class"
    assert np.isnan(read.ap).all()
    assert read.weak == []


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
    with pytest.raises(InputError, match="is not a rounds file: line 1 is not a round; give"):
        read_rounds(file)
    good, bad = json.dumps(make(1).to_json()), json.dumps({"format": 7, "number": 2})
    for text in (f"{good}\n{bad}\n", f"{good}\n{bad}"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"jsonl, line 2 is not a round: KeyError"):
            read_rounds(file)
    file.write_text(json.dumps(make(1).to_json() | {"format": 2}) + "\n")
    with pytest.raises(InputError, match="has format 2, this version reads 7"):
        read_rounds(file)
    with pytest.raises(InputError, match="cannot read rounds"):
        read_rounds(tmp_path / "none.jsonl")


@pytest.mark.parametrize("text", ['[{"image_id": 1}]', "{}", '{\n "images": []\n}', "a,b\n1,2"])
def test_another_file_is_not_a_rounds_file(tmp_path: Path, text: str) -> None:
    (tmp_path / "other").write_text(text)
    with pytest.raises(InputError, match=r"other is not a rounds file.*HardMiner\(rounds=\.\.\.\)"):
        read_rounds(tmp_path / "other")


def test_the_digest_changes_with_any_weight_but_not_with_the_last_bits() -> None:
    weights = np.array([1.0, 2.0])
    assert weights_digest(weights) == weights_digest(weights + 1e-12)
    assert weights_digest(weights) != weights_digest(weights * 1.0001)


def test_a_line_is_json_that_other_programs_read() -> None:
    record = json.loads(json.dumps(make(1).to_json(), allow_nan=False))
    assert record["format"] == 7
    assert record["queries"][1]["precision"] is None

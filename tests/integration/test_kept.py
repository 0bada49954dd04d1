"""What people keep and check in ``hardmine serve`` reaches a miner between two rounds."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toy_data import NAMES, ToyData, labelled_images, make_toy_data
from toy_miner import METRICS, make_miner

from hardmine import HardMiner, NeedRules
from hardmine.config import load_config, miner_arguments
from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.history import Round, read_rounds
from hardmine.kept import CHECKS_FILE, CONTEXTS_FILE
from hardmine.mining.checked import CheckRecord, match_checks
from hardmine.mining.targets import CONFUSER, KINDS, SUSPECT, TargetRules
from hardmine.serve.checks import Decisions
from hardmine.serve.kept import KeptQuestions
from hardmine.serve.questions import Question

Pair = tuple[int, str]  # image row, class


@pytest.fixture(scope="module")
def toy() -> ToyData:
    return make_toy_data(missing=0.3)


def every_class_weak(toy: ToyData, **options: Any) -> HardMiner:
    """A strict miner of toy data."""
    return make_miner(
        toy, need=NeedRules(policy="below:0.9", patience=None), strict=True, **options
    )


def pairs(done: Round, kind: int) -> set[Pair]:
    """Images and classes of a kind of target, contexts left out."""
    assert done.result is not None
    targets = done.result.targets.take(done.result.targets.kinds == kind)
    names = [
        (done.queries[row].class_name, done.queries[row].context) for row in targets.query_rows
    ]
    found = zip(targets.image_rows.tolist(), names, strict=True)
    return {(row, name) for row, (name, context) in found if not context}


def answer(folder: Path, toy: ToyData, found: dict[Pair, str]) -> None:
    """Answer as a person does in ``hardmine serve``."""
    decisions = Decisions(folder / CHECKS_FILE)
    for (row, name), decision in found.items():
        one = MinedImage(
            toy.images.ids[row].item(), "a.png", name, "suspect", 0.5, (0, 0, 1, 1), (9, 9), 1.0
        )
        decisions.add(one, decision)  # type: ignore[arg-type]


def test_answers_and_contexts_reach_the_next_round(toy: ToyData, tmp_path: Path) -> None:
    folder, record = tmp_path / "kept", tmp_path / "rounds.jsonl"
    miner = every_class_weak(toy, rounds=record, kept=folder)
    first = miner.step(METRICS)
    suspects = pairs(first, SUSPECT)
    assert len(suspects) > 5
    true = set(sorted(suspects)[2:])  # the answers say so, whatever is there
    answer(folder, toy, {pair: "missing" if pair in true else "other" for pair in suspects})
    KeptQuestions(folder).add_contexts(Question(("at night",)))

    second = miner.step(METRICS)
    assert not pairs(second, SUSPECT) & suspects
    assert not pairs(second, CONFUSER) & true
    assert "at night" in {query.context for query in second.queries}
    for before, after in zip(
        first.queries, [one for one in second.queries if not one.context], strict=True
    ):
        if any(name == before.class_name for _, name in true):
            assert after.precision > before.precision
    # The record holds what was used: it replays without the folder.
    recorded = read_rounds(record)
    again = make_miner(toy).replay(recorded[1])
    assert np.array_equal(again.weights, second.weights)
    assert np.array_equal(make_miner(toy).replay(recorded[0]).weights, first.weights)

    # A file that is broken meanwhile changes nothing and is noted; an answer taken back counts.
    (folder / CONTEXTS_FILE).write_text("miner: [")
    third = miner.step(METRICS)
    assert third.digest == second.digest
    assert "contexts.yaml is not valid YAML" in third.notes[0]
    (folder / CONTEXTS_FILE).unlink()
    answer(folder, toy, dict.fromkeys(suspects, "open"))
    assert miner.step(METRICS).digest == first.digest


def test_a_confirmed_label_counts_like_one_that_was_there(toy: ToyData, tmp_path: Path) -> None:
    """Suspects, confusers and precision are those of a data set whose labels were mended."""
    missing = toy.images.class_counts.toarray() == 0
    hidden = [tuple(pair) for pair in np.argwhere(toy.present & missing)[::2].tolist()]
    answer(tmp_path, toy, {(row, NAMES[column]): "missing" for row, column in hidden})
    checked = every_class_weak(toy, kept=tmp_path).step(METRICS)
    labels = ~missing
    labels[tuple(np.array(hidden).T)] = True
    mended = replace(toy, images=labelled_images(toy.images.ids, labels))
    expected = every_class_weak(mended).step(METRICS)
    assert pairs(checked, SUSPECT) == pairs(expected, SUSPECT)
    assert pairs(checked, CONFUSER) == pairs(expected, CONFUSER)
    assert [one.precision for one in checked.queries] == [one.precision for one in expected.queries]
    # But no trainer has the label, so the image is not drawn for it.
    shown = set().union(*(pairs(checked, kind) for kind in range(len(KINDS))))
    assert not shown & {(row, NAMES[column]) for row, column in hidden}


def test_what_is_something_else_is_a_sure_confuser(toy: ToyData, tmp_path: Path) -> None:
    """Every suspicion refuted is as if it were known that no label is missing."""
    suspects = pairs(every_class_weak(toy).step(METRICS), SUSPECT)
    answer(tmp_path, toy, dict.fromkeys(suspects, "other"))
    checked = every_class_weak(toy, kept=tmp_path).step(METRICS)
    complete = every_class_weak(toy, targets=TargetRules(missing=0.0)).step(METRICS)
    assert suspects & pairs(checked, CONFUSER)
    assert pairs(checked, CONFUSER) == pairs(complete, CONFUSER)
    assert np.array_equal(checked.weights, complete.weights)


def test_an_image_of_several_rows_and_of_none(toy: ToyData) -> None:
    def check(image_id: int | str, name: str, decision: str) -> CheckRecord:
        return CheckRecord("", image_id, name, "suspect", 0.5, (0, 0, 1, 1), decision)  # type: ignore[arg-type]

    ids = np.array([7, 5, 7, 9])
    checks = [check(7, "zebra", "missing"), check(5, "car", "other"), check(9, "car", "skip")]
    strangers = [check(8, "car", "missing"), check("x", "car", "other"), check(7, "cow", "other")]
    for given in (checks, checks + strangers):
        found = match_checks(given, ids, NAMES)
        assert found.present == ((0, 2), (2, 2))
        assert found.absent == ((1, 0),)
    assert match_checks(strangers[:1], ids, NAMES).present == ()


def test_what_is_not_understood_at_the_start_is_an_error(toy: ToyData, tmp_path: Path) -> None:
    (tmp_path / CHECKS_FILE).write_text("{}\n{}\n")
    with pytest.raises(InputError, match="line 1 is not an answer to a check"):
        make_miner(toy, kept=tmp_path)
    (tmp_path / CHECKS_FILE).unlink()
    (tmp_path / CONTEXTS_FILE).write_text("miner: {contexts: auto}\n")
    with pytest.raises(InputError, match="'auto' is no context to keep"):
        make_miner(toy, kept=tmp_path)
    with pytest.raises(InputError, match=r"folder of hardmine serve.*yaml is a file"):
        make_miner(toy, kept=tmp_path / CONTEXTS_FILE)
    file = tmp_path / "mine.yaml"
    file.write_text(f"miner: {{kept: {tmp_path}}}\n")
    assert load_config(file).miner.kept == str(tmp_path)
    assert miner_arguments({"kept": "coco.serve"}) == {"kept": "coco.serve"}

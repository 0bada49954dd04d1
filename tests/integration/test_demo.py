"""``hardmine demo`` runs offline from scenes to pages, and continues in an earlier folder."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from hardmine.cli.main import main
from hardmine.demo.steps import (
    QUESTIONS,
    STEPS,
    Demo,
    Question,
    make_scenes,
    right_answers,
    summary,
)
from hardmine.demo.training import TrainingResult
from hardmine.detections import Detections
from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round, read_rounds
from hardmine.mining.mine import RoundInputs
from hardmine.mining.queries import Queries
from hardmine.mining.targets import KINDS
from hardmine.mining.weights import report_weights
from hardmine.scenes import generate_scene


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "first"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["demo", "--out", str(folder), "--images", "30", "--seed", "7"]) == 0
    return folder, printed.getvalue()


def printed_steps(stdout: str) -> list[tuple[str, str]]:
    """Title and outcome of each step that a run printed."""
    steps = re.findall(r"^\d+\. (.+?) \([\d.]+ s\): (.*?)(?=^\d+\. |\Z)", stdout, re.M | re.S)
    return [(title, outcome.rstrip("\n")) for title, outcome in steps]


def test_every_step_prints_its_outcome(finished) -> None:
    _, stdout = finished
    outcomes = dict(printed_steps(stdout))
    assert list(outcomes) == [step.title for step in STEPS]
    assert "24 training images" in outcomes["generate scenes"]
    trained = outcomes["train a detector"]
    labels = [line.split(":")[0].strip() for line in trained.splitlines() if ": " in line]
    assert labels == ["weak", "queries", "found", "drawn", "gain"]


def test_the_report_and_the_rounds_are_written(finished) -> None:
    folder, _ = finished
    assert len(read_rounds(folder / "rounds.jsonl")) == 4
    for name in ("report.html", "rounds.html"):
        assert (folder / name).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_shows_the_questions_and_pictures(finished) -> None:
    folder, _ = finished
    page = (folder / "search.html").read_text(encoding="utf-8")
    assert all(question.text in page for question in QUESTIONS)
    assert page.count("data:image/") >= 12


def test_a_second_run_reuses_scenes_and_index(finished) -> None:
    folder, first = finished
    before = {path: path.stat().st_mtime_ns for path in (folder / "scenes").rglob("*.jpg")}
    again = Demo(folder, num_images=30, seed=7)
    outcomes = [step.run(again) for step in STEPS]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "scenes").rglob("*.jpg")}
    assert [outcome for _, outcome in printed_steps(first)] == outcomes


def test_the_summary_compares_the_weak_classes_with_and_without_mining() -> None:
    query = QueryRecord(
        ("cat", "kitten"), "cat", "at night", 0.5, 1.0, 1.0, dict.fromkeys(KINDS, 2)
    )
    queries = Queries((("cat", "kitten"),), np.array([0]), ("at night",), np.array([0.5]))
    done = Round(
        number=1,
        time="",
        seconds=0.0,
        class_names=("cat", "dog", "eel"),
        inputs=RoundInputs(
            ap=np.array([0.1, 0.5, np.nan]), need=np.array([0.8, 0.0, 0.0]), queries=queries
        ),
        patience=np.ones(3),
        queries=(query,),
        draws=report_weights([1.0, 3.0]),
    )
    ap = np.array([[0.1, 0.5, np.nan], [0.25, 0.5, np.nan], [0.15, 0.55, np.nan]])
    lines = summary(TrainingResult([done], *ap, Detections(*np.zeros((4, 0)))))
    assert "1 of 3 classes, the weakest cat" in lines[1]
    assert "queries: 1, some of them for classes at night" in lines[2]
    assert "1 of 2 images more often; 25 % of the draws moved" in lines[4]
    assert [line.replace("█", "").split() for line in lines[6:9]] == [
        ["before", "mining", "10.0", "50.0"],
        ["without", "mining", "15.0", "55.0"],
        ["with", "mining", "25.0", "50.0"],
    ]
    assert [line.count("█") for line in lines[6:9]] == [5, 8, 12]


def test_a_demo_does_not_overwrite_another_one(finished) -> None:
    folder, _ = finished
    with pytest.raises(
        InputError, match="holds other files, or a demo with another number of images"
    ):
        make_scenes(Demo(folder, num_images=31, seed=7))


def test_interrupted_scenes_are_generated_again(tmp_path) -> None:
    (tmp_path / "scenes.part" / "train").mkdir(parents=True)
    make_scenes(Demo(tmp_path, num_images=4))
    assert len(list((tmp_path / "scenes").rglob("*.jpg"))) == 4
    assert not (tmp_path / "scenes.part").exists()


def test_right_answers_are_those_of_the_scenes(finished) -> None:
    folder, _ = finished
    truth = json.loads((folder / "scenes" / "truth" / "train.json").read_text())
    scenes = {image_id: generate_scene(7, image_id - 1) for image_id in range(1, 25)}
    person_at_day = Question("a person by day", "person", context="day")
    assert right_answers(person_at_day, truth).tolist() == [
        image_id
        for image_id, scene in scenes.items()
        if scene.context == "day" and any(thing.kind == "person" for thing in scene.objects)
    ]
    red_cup = Question("a red cup", "cup", color="red")
    assert right_answers(red_cup, truth).tolist() == [
        image_id
        for image_id, scene in scenes.items()
        if any((thing.kind, thing.color) == ("cup", "red") for thing in scene.objects)
    ]
    assert right_answers(Question("a unicorn", "unicorn"), truth).dtype == np.int64

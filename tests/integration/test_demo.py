"""``hardmine demo`` goes the whole way offline, and takes up what it finds."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hardmine.demo.steps import (
    QUESTIONS,
    STEPS,
    Demo,
    Question,
    make_scenes,
    right_answers,
    summary,
)
from hardmine.demo.training import Trained
from hardmine.detections import Detections
from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round, read_rounds
from hardmine.mining.targets import KINDS
from hardmine.mining.weights import report_weights
from hardmine.scenes import generate_scene


def demo(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hardmine.cli.main", "demo", "--out", str(folder), *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("demo") / "first"
    done = demo(folder, "--images", "30", "--seed", "7")
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


def told(said: str) -> list[tuple[str, str]]:
    """Title and outcome of each step that a run printed."""
    steps = re.findall(r"^\d+\. (.+?) \([\d.]+ s\): (.*?)(?=^\d+\. |\Z)", said, re.M | re.S)
    return [(title, outcome.rstrip("\n")) for title, outcome in steps]


def test_every_step_says_what_came_of_it(shown) -> None:
    _, said = shown
    outcomes = dict(told(said))
    assert list(outcomes) == [step.title for step in STEPS]
    assert "24 training images" in outcomes["draw scenes"]
    trained = outcomes["train a detector"]
    assert [line.split(":")[0].strip() for line in trained.splitlines()[1:-1]] == [
        "weak",
        "asked",
        "found",
        "drawn",
        "changed",
    ]


def test_the_report_and_the_rounds_are_written(shown) -> None:
    folder, _ = shown
    assert len(read_rounds(folder / "rounds.jsonl")) == 4
    for name in ("report.html", "rounds.html"):
        assert (folder / name).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_shows_the_questions_and_pictures(shown) -> None:
    folder, _ = shown
    page = (folder / "search.html").read_text(encoding="utf-8")
    assert all(question.text in page for question in QUESTIONS)
    assert page.count("data:image/") >= 12


def test_a_second_run_takes_the_scenes_and_the_index_that_are_there(shown) -> None:
    folder, first = shown
    before = {path: path.stat().st_mtime_ns for path in (folder / "scenes").rglob("*.jpg")}
    again = Demo(folder, num_images=30, seed=7)
    outcomes = [step.run(again) for step in STEPS]
    assert before == {path: path.stat().st_mtime_ns for path in (folder / "scenes").rglob("*.jpg")}
    assert [outcome for _, outcome in told(first)] == outcomes


def test_the_summary_compares_the_weak_classes_with_and_without_mining() -> None:
    asked = QueryRecord(
        ("cat", "kitten"), "cat", "at night", 0.5, 1.0, 1.0, dict.fromkeys(KINDS, 2)
    )
    done = Round(
        number=1,
        when="",
        seconds=0.0,
        class_names=("cat", "dog", "eel"),
        ap=np.array([0.1, 0.5, np.nan]),
        need=np.array([0.8, 0.0, 0.0]),
        patience=np.ones(3),
        asked=(asked,),
        drawn=report_weights([1.0, 3.0]),
    )
    ap = np.array([[0.1, 0.5, np.nan], [0.25, 0.5, np.nan], [0.15, 0.55, np.nan]])
    lines = summary(Trained([done], *ap, Detections(*np.zeros((4, 0)))))
    assert "1 of 3 classes, the weakest cat" in lines[1]
    assert "1 queries, among them classes at night" in lines[2]
    assert "1 of 2 images more often; 25 % of the draws moved" in lines[4]
    assert "the weak classes AP 10.0 -> 25.0 (without mining 15.0)" in lines[5]
    assert "the others AP 50.0 -> 50.0 (without mining 55.0)" in lines[5]


def test_another_demo_does_not_write_over_it(shown) -> None:
    folder, _ = shown
    with pytest.raises(InputError, match="holds something else than this demo"):
        make_scenes(Demo(folder, num_images=31, seed=7))


def test_scenes_that_were_broken_off_are_drawn_again(tmp_path) -> None:
    (tmp_path / "scenes.part" / "train").mkdir(parents=True)
    make_scenes(Demo(tmp_path, num_images=4))
    assert len(list((tmp_path / "scenes").rglob("*.jpg"))) == 4
    assert not (tmp_path / "scenes.part").exists()


def test_right_answers_are_those_of_the_scenes(shown) -> None:
    folder, _ = shown
    truth = json.loads((folder / "scenes" / "truth" / "train.json").read_text())
    scenes = {image_id: generate_scene(7, image_id - 1) for image_id in range(1, 25)}
    person_at_day = Question("a person by day", "person", condition="day")
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

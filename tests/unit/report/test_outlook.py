"""What a report says of benchmarks: the figures that were measured, and those that are alike."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from hardmine.report.gaps import ClassGap
from hardmine.report.outlook import MEASURED, Measured, outlook
from hardmine.report.text_slices import TextSlice

ROADS = json.loads(
    (Path(__file__).parents[2] / "benchmarks/results/roads.json").read_text(encoding="utf-8")
)
REGIMES = {2: "plenty", 7: "usual", 12: "long", 40: "scarce"}
SCENARIOS = {
    ("rare classes", 2): "as-it-comes",
    ("rare classes", 7): "as-it-comes",
    ("rare classes", 12): "as-it-comes",
    ("rare classes", 40): "few-photos",
}
PARTS = {
    "a condition that training seldom shows": "timeofday=night/frequent/ap50",
    "rare classes": "all/rare/ap50",
}


@pytest.mark.parametrize("one", MEASURED, ids=lambda one: f"{one.weakness}-{one.passes}")
def test_the_figures_are_those_that_were_measured(one: Measured) -> None:
    scenario = SCENARIOS.get((one.weakness, one.passes), "night-is-coming")
    halves = ROADS[scenario][REGIMES[one.passes]]
    strategies = halves.get("reporting", halves.get("choosing"))["strategies"]
    results = strategies["hardmine"]["results"]
    assert one.weak == pytest.approx(results[PARTS[one.weakness]]["gain"], abs=0.051)
    assert one.all == pytest.approx(results["all/frequent/ap50"]["gain"], abs=0.051)


SELDOM = {"val_share": 0.4, "train_share": 0.05}


def class_gap(*kinds: str) -> ClassGap:
    return ClassGap("cat", ap=0.1, kinds=kinds)


def harder() -> TextSlice:
    return TextSlice("at night", ("cat",), 50, 0.1, 0.4, 0.3, 0.2, 0.4, 0.001, **SELDOM)


def test_only_benchmarks_with_the_same_weakness_count() -> None:
    assert outlook([class_gap("missed")], []) == ()
    rare = outlook([class_gap("few")], [])
    assert {one.weakness for one in rare} == {"rare classes"}
    assert {one.weakness for one in outlook([class_gap()], [harder()])} == {
        "a condition that training seldom shows"
    }


def test_a_condition_counts_in_which_objects_are_missed_though_ap_does_not_show_it() -> None:
    unsure = replace(harder(), low=-0.1, p=0.3)
    assert outlook([class_gap()], [unsure]) == ()
    assert outlook([class_gap()], [replace(unsure, suggested=True)])


def test_a_condition_that_training_shows_as_often_as_validation_does_not_count() -> None:
    assert outlook([class_gap()], [replace(harder(), train_share=0.3)]) == ()


@pytest.mark.parametrize(("epochs", "seen"), [(3, 2), (8, 7), (12, 12), (13, 40), (50, 40)])
def test_benchmarks_are_mined_as_the_training_would_be(epochs: float, seen: int) -> None:
    """Up to twelve epochs throughout, and beyond in the last quarter alone."""
    assert [one.passes for one in outlook([class_gap()], [harder()], epochs=epochs)] == [seen]


def test_of_the_same_weakness_the_nearest_number_of_passes_counts() -> None:
    (few,) = outlook([class_gap()], [harder()], epochs=1)
    (many,) = outlook([class_gap()], [harder()], epochs=100)
    assert few.passes < many.passes
    assert f"each image seen {many.passes} times" in many.sentence

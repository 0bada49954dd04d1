"""What rounds add up to, as values and as a page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round
from hardmine.mining.targets import KINDS
from hardmine.report.rounds_page import chart, rounds_page, spark
from hardmine.report.run_summary import points, read_history

NAMES = ("car", "fork", "<script>")


def make(number: int, ap: list[float], weak: str = "fork", **changes: object) -> Round:
    asked = QueryRecord((weak,), weak, "", 0.5, 0.8, 0.8, dict.fromkeys(KINDS, 1))
    done = Round(
        number=number,
        when="",
        seconds=1.0,
        class_names=NAMES,
        ap=np.array(ap),
        need=np.array([0.5 if name == weak else 0.0 for name in NAMES]),
        patience=np.ones(3),
        asked=(asked,),
        applied=True,
    )
    return replace(done, **changes)


RUN = [
    make(1, [0.5, 0.1, 0.2]),
    make(2, [0.51, 0.2, 0.2]),
    make(3, [np.nan] * 3, asked=(), applied=False, error="InputError: <b>"),
    make(4, [0.52, 0.25, 0.26], weak="<script>"),
    make(5, [0.5, 0.24, 0.3]),
]


def test_gains_go_to_the_round_that_boosted_across_a_failed_one() -> None:
    history = read_history(RUN)
    weak = [line.gain_weak for line in history.rounds]
    assert weak == pytest.approx([0.1, 0.05, np.nan, 0.04, np.nan], nan_ok=True)
    rest = [line.gain_rest for line in history.rounds]
    assert rest == pytest.approx([0.005, 0.035, np.nan, -0.015, np.nan], nan_ok=True)
    assert history.helped == pytest.approx((0.19 / 3, 0.025 / 3))
    assert history.rounds[2].note == "InputError: <b>"


def test_classes_stand_by_how_often_they_were_boosted() -> None:
    history = read_history(RUN)
    assert [(line.name, line.boosted) for line in history.classes] == [
        ("fork", 3),
        ("<script>", 1),
        ("car", 0),
    ]
    fork = history.classes[0]
    assert fork.gain_boosted == pytest.approx(0.15)
    assert fork.gain_plain == pytest.approx(-0.01)
    assert fork.trust == pytest.approx(0.8)
    assert np.isnan(history.classes[2].trust)


def test_a_dry_run_boosts_nothing() -> None:
    dry = [replace(done, applied=False) for done in RUN[:2]]
    history = read_history(dry)
    assert all(line.boosted == 0 for line in history.classes)
    assert history.rounds[0].note == "dry run"


def test_what_is_taken_for_what_is_told_most_first() -> None:
    settings = {"taken_for": [[0, 1, 0.125], [2, 0, 0.5]]}
    history = read_history([*RUN, make(6, [0.5, 0.2, 0.3], settings=settings)])
    assert history.rounds[0].taken == ()
    assert history.rounds[-1].taken == ("<script> for car 50 %", "car for fork 12 %")
    page = rounds_page(history)
    assert (
        "Mistaken more than most classes: &lt;script&gt; for car 50 %, car for fork 12 %." in page
    )


def test_nothing_or_two_runs_in_one_file_are_refused() -> None:
    with pytest.raises(InputError, match="no rounds"):
        read_history([])
    with pytest.raises(InputError, match="other classes"):
        read_history([RUN[0], replace(RUN[1], class_names=("a", "b", "c"))])


def test_lines_break_where_a_value_is_unknown() -> None:
    made = chart(
        "?", {"a": np.array([0.1, np.nan, 0.2, 0.3]), "b": np.full(4, np.nan)}, [1, 2, 3, 4]
    )
    (line,) = made.series
    assert line.path == "M0.00 75.00M66.67 50.00L100.00 25.00"
    assert [text for _, text in made.ticks] == ["0 %", "20 %", "40 %"]
    assert line.last == "30.0 %"


@pytest.mark.parametrize("best", [0.01, 0.03, 0.09, 0.15, 0.3, 0.5, 0.7, 0.9])
def test_the_scale_of_a_chart_says_where_its_lines_are(best: float) -> None:
    made = chart("AP", {"boosted": np.array([0.0, best])}, [1, 2])
    top = best * 100 / (100 - made.series[0].dots[1][1])
    said = [int(text.removesuffix(" %")) / 100 for _, text in made.ticks]
    assert said == pytest.approx([0, top / 2, top])


def test_a_single_round_and_unknown_classes_still_make_a_page() -> None:
    history = read_history([make(1, [np.nan, 0.1, np.nan])])
    page = rounds_page(history)
    assert "unknown" in page
    assert spark(history.classes[-1]) == ""


def test_the_page_asks_for_nothing_and_runs_no_names() -> None:
    page = rounds_page(read_history(RUN), title="<i>run</i>")
    assert "<i>run" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert page.count("<details") == 5


def test_differences_are_told_in_points() -> None:
    assert [points(value) for value in (0.0123, -0.05, 0.0, float("nan"))] == [
        "+1.2",
        "−5.0",
        "+0.0",
        "–",
    ]

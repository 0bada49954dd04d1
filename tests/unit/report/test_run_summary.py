"""A run summed up over its rounds, as values and as a page."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round
from hardmine.mining.confusion import Pairs
from hardmine.mining.mine import Ratios, RoundInputs
from hardmine.mining.queries import Queries
from hardmine.mining.targets import KINDS
from hardmine.mining.weights import WeightRules, report_weights
from hardmine.report.rounds_page import chart, rounds_page, spark
from hardmine.report.run_summary import summarize_run
from hardmine.report.units import points

NAMES = ("car", "fork", "<script>")


def make(
    number: int,
    ap: list[float],
    weak: str = "fork",
    mistaken_for: Pairs = (),
    ratios: Ratios | None = None,
    epoch: float = 0.0,
    **changes: object,
) -> Round:
    row = NAMES.index(weak)
    inputs = RoundInputs(
        ap=np.array(ap),
        need=0.5 * (np.arange(3) == row),
        queries=Queries(((weak,),), np.array([row]), ("",), np.array([0.5])),
        mistaken_for=mistaken_for,
        ratios=ratios or Ratios(),
        weights=WeightRules().at(epoch, 4),
    )
    done = Round(
        number=number,
        time="",
        seconds=1.0,
        class_names=NAMES,
        inputs=inputs,
        patience=np.ones(3),
        queries=(QueryRecord((weak,), weak, "", 0.5, 0.8, 0.8, dict.fromkeys(KINDS, 1)),),
    )
    return replace(done, **changes)


RUN = [
    make(1, [0.5, 0.1, 0.2]),
    make(2, [0.51, 0.2, 0.2]),
    make(3, [np.nan] * 3, inputs=None, queries=(), error="InputError: <b>"),
    make(4, [0.52, 0.25, 0.26], weak="<script>"),
    make(5, [0.5, 0.24, 0.3]),
]


def test_gains_are_counted_across_a_failed_round() -> None:
    run = summarize_run(RUN)
    weak = [line.gain_weak for line in run.rounds]
    assert weak == pytest.approx([0.1, 0.05, np.nan, 0.04, np.nan], nan_ok=True)
    rest = [line.gain_rest for line in run.rounds]
    assert rest == pytest.approx([0.005, 0.035, np.nan, -0.015, np.nan], nan_ok=True)
    assert run.gains == pytest.approx((0.19 / 3, 0.025 / 3))
    assert run.rounds[2].error == "InputError: <b>"


def test_classes_are_sorted_by_how_often_they_were_boosted() -> None:
    run = summarize_run(RUN)
    assert [(line.name, line.num_boosted) for line in run.classes] == [
        ("fork", 3),
        ("<script>", 1),
        ("car", 0),
    ]
    fork = run.classes[0]
    assert fork.gain_boosted == pytest.approx(0.15)
    assert fork.gain_rest == pytest.approx(-0.01)
    assert fork.trust == pytest.approx(0.8)
    assert np.isnan(run.classes[2].trust)


def test_the_end_of_a_training_boosts_no_class() -> None:
    run = summarize_run([*RUN, make(6, [0.5, 0.2, 0.3], epoch=3)])
    sentence = "draws follow only the look of what is missed"
    assert [line.drawn_by for line in run.rounds] == [""] * 5 + [sentence]
    assert [line.num_boosted for line in run.classes] == [3, 1, 0]
    assert sentence.capitalize() in rounds_page(run)
    assert sentence.capitalize() not in rounds_page(summarize_run(RUN))


def test_confused_classes_are_listed_with_the_largest_share_first() -> None:
    mistaken_for = ((0, 1, 0.125), (2, 0, 0.5))
    run = summarize_run([*RUN, make(6, [0.5, 0.2, 0.3], mistaken_for=mistaken_for)])
    assert run.rounds[0].mistaken == ()
    assert run.rounds[-1].mistaken == ("<script> for car 50 %", "car for fork 12 %")
    sentence = "for another class more than most: &lt;script&gt; for car 50 %, car for fork 12 %."
    assert sentence in rounds_page(run)


def test_the_page_shows_the_notes_of_a_round() -> None:
    page = rounds_page(summarize_run([make(1, [0.5, 0.1, 0.2], notes=("no <boxes>",))]))
    assert '<p class="note warn" style="margin-top:12px">no &lt;boxes&gt;</p>' in page


@pytest.mark.parametrize(
    ("weights", "change"),
    [
        pytest.param([1.0, 1.0, 1.0], 0.0, id="uniform"),
        pytest.param([0.5, 1.0, 1.0], -1 / 6, id="less"),
        pytest.param([0.0, 1.0, 1.0], -0.5, id="never drawn"),
    ],
)
def test_the_change_of_the_head_classes_share(weights: list[float], change: float) -> None:
    """The first class is the head: two of four objects, both in the first image."""
    draws = report_weights(weights, np.array([[2, 0, 0], [0, 1, 0], [0, 0, 1]]))
    run = summarize_run([make(1, [0.5, 0.1, 0.2], draws=draws)])
    assert run.rounds[0].head_change == pytest.approx(change)


def test_a_failed_last_round_hides_no_need() -> None:
    run = summarize_run(RUN[:3])  # the third failed
    fork = run.classes[0]
    np.testing.assert_array_equal(fork.need, [0.5, 0.5, np.nan])
    assert '<td class="num">0.50</td>' in rounds_page(run)


def test_the_last_known_ratio_of_missed_to_shown_objects_is_that_of_a_class() -> None:
    assert all(np.isnan(one.missed) for one in summarize_run(RUN).classes)
    run = summarize_run([make(1, [0.5, 0.1, 0.2], ratios=Ratios((0.5, 2.25, 1.0))), *RUN[2:3]])
    assert {one.missed for one in run.classes} == {0.5, 2.25, 1.0}
    assert '<td class="num">2.25 ×</td>' in rounds_page(run)


def test_an_empty_file_and_a_file_of_two_runs_are_refused() -> None:
    with pytest.raises(InputError, match="no rounds"):
        summarize_run([])
    with pytest.raises(InputError, match="other classes"):
        summarize_run([RUN[0], replace(RUN[1], class_names=("a", "b", "c"))])


def test_lines_break_where_a_value_is_unknown() -> None:
    made = chart(
        "?", {"a": np.array([0.1, np.nan, 0.2, 0.3]), "b": np.full(4, np.nan)}, [1, 2, 3, 4]
    )
    (line,) = made.series
    assert line.path == "M0.00 75.00M66.67 50.00L100.00 25.00"
    assert [text for _, text in made.ticks] == ["0 %", "20 %", "40 %"]
    assert line.last == "30.0 %"


@pytest.mark.parametrize("best", [0.01, 0.03, 0.09, 0.15, 0.3, 0.5, 0.7, 0.9])
def test_tick_labels_of_a_chart_are_at_their_values(best: float) -> None:
    made = chart("AP", {"boosted": np.array([0.0, best])}, [1, 2])
    top = best * 100 / (100 - made.series[0].dots[1][1])
    labels = [int(text.removesuffix(" %")) / 100 for _, text in made.ticks]
    assert labels == pytest.approx([0, top / 2, top])


def test_a_single_round_and_unknown_classes_still_make_a_page() -> None:
    run = summarize_run([make(1, [np.nan, 0.1, np.nan])])
    page = rounds_page(run)
    assert "unknown" in page
    assert spark(run.classes[-1]) == ""


def test_the_page_makes_no_request_and_escapes_names() -> None:
    page = rounds_page(summarize_run(RUN), title="<i>run</i>")
    assert "<i>run" not in page
    assert "&lt;script&gt;" in page
    assert "&lt;b&gt;" in page
    assert not re.search(r"(src|href)=\"(?!#|data:)", page)
    assert page.count("<details") == 5


def test_differences_are_in_points() -> None:
    assert [points(value) for value in (0.0123, -0.05, 0.0, float("nan"))] == [
        "+1.2",
        "−5.0",
        "+0.0",
        "–",
    ]

"""The report's page and files: layout of the plot, escaping, JSON, CSV, proposals."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.report.gap_output import GapReport, to_csv, to_json
from hardmine.report.gap_page import changes, gap_page, scatter, sort_key
from hardmine.report.gaps import ClassGap, LabelCount, Retrieval
from hardmine.report.relabel import write_suspects


def report(*classes: tuple[str, float, int]) -> GapReport:
    gaps = tuple(
        ClassGap(name, ap, need=max(0.0, 0.4 - ap), val=LabelCount(count, count, 0.5))
        for name, ap, count in classes
    )
    return GapReport("results", "detections", gaps)


def test_the_plot_has_more_instances_to_the_right_and_more_ap_above() -> None:
    plot = scatter(report(("rare", 0.1, 10), ("common", 0.1, 1000), ("good", 0.8, 100)))
    assert plot is not None
    rare, common, good = plot.dots
    assert rare.x < good.x < common.x
    assert good.x == pytest.approx((rare.x + common.x) / 2)  # a logarithmic scale
    assert good.y < rare.y == common.y
    assert (rare.label, common.label, good.label) == (True, True, False)
    assert (rare.left, common.left) == (False, True)
    assert [text for _, text in plot.xticks] == ["10", "30", "100", "300", "1,000"]


def test_names_in_the_plot_do_not_cover_each_other() -> None:
    plot = scatter(report(*((f"class {n}", 0.1 + n / 10_000, 100) for n in range(20))))
    assert plot is not None
    assert sum(dot.label for dot in plot.dots) == 1


@pytest.mark.parametrize("best", [0.05, 0.15, 0.25, 0.5, 0.6, 0.95])
def test_tick_labels_of_ap_are_at_their_values(best: float) -> None:
    plot = scatter(report(("weak", 0.0, 5), ("best", best, 50)))
    assert plot is not None
    top = best * 100 / (100 - plot.dots[1].y)
    values = [int(text) / 100 for _, text in plot.yticks]
    assert [y for y, _ in plot.yticks] == pytest.approx([100 - 100 * ap / top for ap in values])
    assert 4 <= len(values) <= 6
    assert len(set(np.diff(values).round(9))) == 1


@pytest.mark.parametrize("classes", [[], [("one", 0.1, 5)], [("a", math.nan, 5), ("b", 0.1, 0)]])
def test_no_plot_without_two_known_classes(classes: list[tuple[str, float, int]]) -> None:
    assert scatter(report(*classes)) is None


def test_bars_show_which_classes_are_drawn_more_and_which_less() -> None:
    plain = report(("weak", 0.1, 5), ("same", 0.5, 5), ("strong", 0.9, 5), ("unseen", 0.2, 5))
    draws = (3.0, 1.0, 0.5, math.nan)
    gaps = tuple(
        replace(gap, retrieval=Retrieval(0.5, 10, 5, draws=times))
        for gap, times in zip(plain.gaps, draws, strict=True)
    )
    bars = changes(replace(plain, gaps=gaps))
    assert [(bar.name, bar.weak) for bar in bars] == [
        ("weak", True),
        ("same", False),
        ("strong", False),
    ]
    # The scale goes from 0.5 to 3, so 1 is at 20 %.
    assert [round(bar.left) for bar in bars] == [20, 20, 0]
    assert [round(bar.width) for bar in bars] == [80, 0, 20]
    assert changes(plain) == ()


def test_unknown_numbers_have_an_empty_sort_key() -> None:
    assert (sort_key(math.nan), sort_key(None), sort_key(0.25)) == ("", "", "0.25")


def test_names_are_escaped() -> None:
    page = gap_page(report(("<script>alert(1)</script>", 0.1, 5), ("b", 0.5, 5)))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_json_has_no_nan_and_csv_leaves_it_empty() -> None:
    some = report(("a,b", math.nan, 3), ("c", 0.25, 4))
    values = json.loads(json.dumps(to_json(some), allow_nan=False))
    assert [one["ap"] for one in values["classes"]] == [None, 0.25]
    lines = to_csv(some).splitlines()
    assert lines[1].startswith('"a,b",,,')
    assert lines[2].startswith("c,0.25,,")


def suspect(image_id: int, name: str) -> MinedImage:
    box = (0.25, 0.5, 0.75, 1.0)
    return MinedImage(image_id, f"{image_id}.jpg", name, "suspect", 0.31, box, (100, 200), 1.5)


def test_suspects_as_files(tmp_path: Path) -> None:
    table, proposals = write_suspects(
        [suspect(7, "dog"), suspect(7, "cat"), suspect(9, "dog")], tmp_path / "to" / "do"
    )
    assert table.read_text().splitlines()[1] == "7,7.jpg,dog,0.31,50.0,50.0,100.0,50.0"
    values = json.loads(proposals.read_text())
    assert values["categories"] == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    assert [one["id"] for one in values["images"]] == [7, 9]
    assert values["images"][0] == {"id": 7, "file_name": "7.jpg", "height": 100, "width": 200}
    assert [one["category_id"] for one in values["annotations"]] == [2, 1, 2]
    assert values["annotations"][0]["bbox"] == [50.0, 50.0, 100.0, 50.0]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_suspects([], tmp_path / "file")

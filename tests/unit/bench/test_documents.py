"""The figures of road photos: the report is that of the runs, README and docs are those of it."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.roads.documents import EVIDENCE, fill_documents
from tests.benchmarks.roads.runs import read_all
from tests.benchmarks.roads.table import build_report, to_markdown

ROOT = Path(__file__).parents[3]
RESULTS = ROOT / "tests/benchmarks/results"


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((RESULTS / "roads.json").read_text("utf-8"))
    return loaded


def test_the_report_is_that_of_the_runs(report: dict[str, Any]) -> None:
    runs = read_all([RESULTS / "roads.jsonl", RESULTS / "roads_2.jsonl"])
    assert json.loads(json.dumps(build_report(runs))) == report
    text = (RESULTS / "roads.md").read_text("utf-8")
    assert to_markdown(report, plot="roads.svg") == text


@pytest.mark.parametrize("name", ["README.md", "docs/when.md", "docs/evidence.md"])
def test_readme_and_docs_have_the_figures_of_the_report(report: dict[str, Any], name: str) -> None:
    assert (ROOT / name).read_text("utf-8") == fill_documents(ROOT, report)[ROOT / name]


def test_another_figure_is_another_text(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    strategies = EVIDENCE[0].strategies(other)
    strategies["hardmine"]["results"][EVIDENCE[0].weak]["gain"] = [-12.34, 0.56]
    for path, text in fill_documents(ROOT, other).items():
        assert text.count("-12.3 ± 0.6") == 1, path


def test_all_groups_of_the_report_are_in_the_docs(report: dict[str, Any]) -> None:
    measured = {
        (scenario, passes)
        for scenario, regimes in report.items()
        for passes, halves in regimes.items()
        if halves.get("reporting", {}).get("strategies")
    }
    assert {(group.scenario, group.passes) for group in EVIDENCE} == measured


def test_a_row_that_is_not_there_is_named(report: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/when.md", "docs/evidence.md"):
        text = (ROOT / name).read_text("utf-8")
        (tmp_path / name).write_text(
            text.replace("| rare classes; road photos |", "| rare |"), "utf-8"
        )
    with pytest.raises(ValueError, match="no row is called 'rare classes; road photos'"):
        fill_documents(tmp_path, report)

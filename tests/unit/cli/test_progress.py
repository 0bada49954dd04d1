"""Long commands are never silent for long, in a terminal or not."""

from __future__ import annotations

import io
import time

import pytest
from rich.console import Console

from hardmine.cli import progress


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    written = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=written))
    return written


def wait_for(text: str, written: io.StringIO) -> None:
    end = time.monotonic() + 10
    while text not in written.getvalue():
        assert time.monotonic() < end, written.getvalue()
        time.sleep(0.01)


def test_a_line_says_where_a_bar_is_outside_a_terminal(lines: io.StringIO) -> None:
    with progress.heartbeat("hardmine index", seconds=0.02):
        wait_for("hardmine index: working, 0:00:00", lines)
        with progress.progress_bar() as bar:
            task = bar.add_task("embedding", total=5000, note="")
            wait_for("embedding: 0:00:00\n", lines)
            bar.update(task, completed=1200, note="2 skipped")
            wait_for("embedding: 1,200 of 5,000, 2 skipped\n", lines)
            bar.reset(task, description="ranking")
            bar.update(task, completed=3)
            wait_for("ranking: 3 of 5,000, 2 skipped\n", lines)
    before = lines.getvalue()
    time.sleep(0.1)
    assert lines.getvalue() == before


def test_a_bar_in_a_terminal_is_not_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(progress, "console", Console(file=screen, force_terminal=True))
    with progress.progress_bar() as bar, progress.heartbeat("hardmine index", seconds=0.02):
        bar.add_task("embedding", total=5000, note="")
        time.sleep(0.2)
    assert "embedding" in screen.getvalue()
    assert "embedding:" not in screen.getvalue()
    assert "working" not in screen.getvalue()

"""Progress: a bar in a terminal, a line every ten seconds elsewhere; and names on one line."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    Task,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)
_SECONDS = 10.0  # longest silence
_open: list[Progress] = []


class _Bar(Progress):
    """A bar that ``heartbeat`` knows of while it is open."""

    def start(self) -> None:
        _open.append(self)
        super().start()

    def stop(self) -> None:
        if self in _open:
            _open.remove(self)
        super().stop()


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def one_line(text: str) -> str:
    r"""Write tabs, line ends and backslashes of a name as ``\t``, ``\n``, ``\r`` and ``\\``."""
    return text.translate(_ESCAPES)


def progress_bar() -> Progress:
    """A bar with the count and the remaining time; not shown if stderr is not a terminal."""
    return _Bar(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )


@contextmanager
def heartbeat(command: str, seconds: float = _SECONDS) -> Iterator[None]:
    """Say every few seconds what a command is doing, unless a bar shows it.

    Args:
        command: Named where no bar is open.
        seconds: Between two lines.
    """
    started = time.monotonic()
    ended = threading.Event()

    def say() -> None:
        while not ended.wait(seconds):
            bars = list(_open)
            if not bars:
                line = f"{command}: working, {_clock(time.monotonic() - started)}"
            elif bars[-1].disable:
                line = _describe(bars[-1].tasks)
            else:
                continue
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    thread = threading.Thread(target=say, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _describe(tasks: list[Task]) -> str:
    """One line on the first unfinished task: count, time left, note.

    >>> bar = Progress(disable=True)
    >>> task = bar.add_task("embedding", total=5000, note="12.0 images/s")
    >>> bar.update(task, completed=120)
    >>> _describe(bar.tasks)
    'embedding: 120 of 5,000, 12.0 images/s'
    """
    [*open_tasks] = [task for task in tasks if not task.finished] or tasks[-1:]
    if not open_tasks:
        return "working"
    task = open_tasks[0]
    parts = [f"{task.completed:,.0f}" + (f" of {task.total:,.0f}" if task.total else "")]
    if not task.completed:
        parts = [_clock(task.elapsed or 0.0)]
    if task.time_remaining:
        parts.append(f"{_clock(task.time_remaining)} left")
    parts.append(str(task.fields.get("note") or ""))
    return f"{task.description}: " + ", ".join(part for part in parts if part)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))

"""What commands print: progress bars on stderr, off if it is no terminal, and names on one line."""

from __future__ import annotations

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

console = Console(stderr=True)


_ESCAPES = str.maketrans({"\\": r"\\", "\t": r"\t", "\n": r"\n", "\r": r"\r"})


def one_line(text: str) -> str:
    r"""Write tabs, line ends and backslashes of a name as ``\t``, ``\n``, ``\r`` and ``\\``."""
    return text.translate(_ESCAPES)


def progress_bar() -> Progress:
    """A bar with the count and the remaining time; off if stderr is not a terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=console,
        disable=not console.is_terminal,
    )

"""Files that commands write for people: pages and tables."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from hardmine.cli.progress import console
from hardmine.errors import InputError


def write_text(path: Path, text: str) -> None:
    """Write a file, its folder included, and say so.

    Raises:
        InputError: If it cannot be written.
    """
    content = text.encode(errors="backslashreplace")  # names of files that are not UTF-8
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error}; choose another file") from error
    size = f"{len(content) / 1e6:.1f} MB" if len(content) > 1e6 else f"{len(content) / 1e3:.0f} kB"
    _say(f"wrote {path} ({size})")


def write_page(path: Path, page: str, roots: Iterable[Path]) -> None:
    """Write a page, and warn of the pictures that it could not show.

    Args:
        path: Of the page.
        page: Made of the templates of ``hardmine.report``.
        roots: Folders that the pictures were looked for in.
    """
    write_text(path, page)
    missing = page.count('<span class="missing"')
    if missing:
        pictures = page.count('<figure class="tile"')
        _say(
            f"warning: {missing} of {pictures} pictures cannot be shown; they were looked for in "
            f"{', '.join(dict.fromkeys(map(str, roots)))}: give their folder with --images DIR"
        )


def _say(line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)

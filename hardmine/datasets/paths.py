"""Checks the image paths in a data set's files: inside the image root, and existing."""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from hardmine.addresses import Address, as_path
from hardmine.errors import InputError

SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".gif", ".ppm", ".pgm", ".jp2")
)
# Cheap test for paths that need normalising or refusing; almost no path matches.
_UNUSUAL = re.compile(r"^/|\\|\.\.|\x00|^[A-Za-z]:|//|(?:^|/)\./|^\.?$")
_DRIVE = re.compile(r"^[A-Za-z]:[/\\]")


def inside(name: str, source: object, entry: str) -> str:
    """Normalise a relative path with forward slashes; refuse one that leaves the image root.

    Symbolic links below the root are followed: linked image folders are common, and the owner of
    the folder made them. Paths from an annotation file are not trusted to point elsewhere.

    >>> inside("images/./a.jpg", "a.json", "images[0]")
    'images/a.jpg'
    """
    if not _UNUSUAL.search(name):
        return name
    path = posixpath.normpath(name.replace("\\", "/"))
    if (
        posixpath.isabs(path)
        or path == ".."
        or path.startswith("../")
        or _DRIVE.match(name)
        or "\0" in name
    ):
        raise InputError(
            f"{source}: {entry}: the path {name!r} leaves the image root; expected one relative "
            "to it, without a leading slash or '..'"
        )
    if path == "." or not name:
        raise InputError(f"{source}: {entry}: the image has no path")
    return path


def all_inside(
    names: Iterable[str], source: object, entry: Callable[[int], str]
) -> tuple[str, ...]:
    """Apply ``inside`` to many paths; ``entry`` returns the name of the entry at a position."""
    unusual = _UNUSUAL.search
    return tuple(
        inside(name, source, entry(row)) if unusual(name) else name
        for row, name in enumerate(names)
    )


def require_files(
    root: Path, paths: Sequence[str], source: object, entry: Callable[[int], str]
) -> None:
    """Raise an InputError that names the first missing images.

    Lists each folder once, which is far faster than a call for each file.
    """
    listed: dict[str, frozenset[str]] = {}
    missing = []
    for row, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        if folder not in listed:
            listed[folder] = _names(root / folder)
        # A case-insensitive file system also opens names that the listing spells differently.
        if name not in listed[folder] and not (root / path).exists():
            missing.append(row)
            if len(missing) == 1 and not listed[folder]:
                break
    if missing:
        first = ", ".join(f"{paths[row]} ({entry(row)})" for row in missing[:3])
        raise InputError(
            f"{source}: images are missing below {root}: {first}"
            + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
            + "; is this the image folder? (check_files=False loads the set without this check; "
            "images that cannot be read are then skipped and counted when an index is built)"
        )


def _names(folder: Path) -> frozenset[str]:
    if isinstance(folder, Address):
        try:
            return frozenset(path.name for path in folder.iterdir())
        except FileNotFoundError:
            return frozenset()
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except OSError:
        return frozenset()


def walk(folder: Path) -> Iterator[tuple[str | Path, list[str], list[str]]]:
    """Folders from the top, as ``os.walk`` lists them; symbolic links are followed.

    Raises:
        InputError: If a folder cannot be listed: its images would be left out without a word.
    """
    if isinstance(folder, Address):
        yield from folder.walk()
    else:
        yield from os.walk(folder, followlinks=True, onerror=_refuse)


def _refuse(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):  # removed meanwhile
        raise InputError(
            f"{error.filename}: cannot be listed ({error.strerror}); allow it, or move the folder "
            "away if its images do not belong to the set"
        ) from error


def walk_images(root: Path) -> list[str]:
    """Image files below a folder (by suffix), sorted by path; symbolic links are followed."""
    found: list[str] = []
    seen: set[str] = set()
    for folder, subfolders, names in walk(root):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder that was already listed
            subfolders.clear()
            continue
        seen.add(real)
        subfolders[:] = sorted(name for name in subfolders if not name.startswith("."))
        below = as_path(folder).relative_to(root).as_posix()
        prefix = "" if below == "." else f"{below}/"
        found += (
            prefix + name
            for name in names
            if not name.startswith(".") and posixpath.splitext(name)[1].lower() in SUFFIXES
        )
    return sorted(found)

"""Reads images without labels: all images below a folder, or those that a text file lists."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hardmine.addresses import Address, as_path
from hardmine.datasets.paths import inside, require_files, walk_images
from hardmine.errors import InputError
from hardmine.records import ImageSet


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a folder of images, sorted by path, or a list of images, in the list's order.

    Paths in a list are relative to the list's folder, or to ``source`` if the list is given as
    ``annotations``. Absolute paths and addresses must be inside that folder. Ids are the paths.

    Args:
        source: A folder, or a text file with one path in each line; empty lines and lines that
            start with ``#`` are skipped.
        annotations: The list, if ``source`` is the image folder.
        split: Must be None; this format has no splits.
        check_files: Whether a missing image is an error.
    """
    if split is not None:
        raise InputError(f"{source}: a folder or list has no splits, got split={split!r}")
    if annotations is None and source.is_dir():
        paths = tuple(walk_images(source))
        if not paths:
            raise InputError(f"{source}: no image file in this folder or below it")
        return unlabelled_images(source, paths)
    file = annotations or source
    root = source if source.is_dir() else source.parent
    lines = read_list(file)
    paths = tuple(_below(name, root, file, line) for line, name in lines)
    if len(set(paths)) < len(paths):
        seen: dict[str, int] = {}
        for (line, _), path in zip(lines, paths, strict=True):
            if path in seen:
                raise InputError(
                    f"{file}: line {line}: {path!r} is already on line {seen[path]}; "
                    "an image set holds each image once"
                )
            seen[path] = line
    if check_files:
        require_files(root, paths, file, lambda row: f"line {lines[row][0]}")
    return unlabelled_images(root, paths)


def _below(name: str, root: Path, file: Path, line: int) -> str:
    """The path of an image below the root."""
    try:
        below = relative_if_below(name, root)
        if "://" in below:
            raise InputError(
                f"the address {as_path(below)} is not below {root}; pass the folder that it lies "
                "in as the source, and this file as annotations"
            )
    except InputError as error:
        raise InputError(f"{file}: line {line}: {error}") from None
    return inside(below, file, f"line {line}")


def unlabelled_images(root: Path, paths: tuple[str, ...]) -> ImageSet:
    """An image set without labels."""
    return ImageSet(
        root=root, ids=np.array(paths, str), paths=paths, sizes=np.zeros((len(paths), 2), np.int32)
    )


def read_list(file: Path) -> list[tuple[int, str]]:
    """Lines of a text file with their numbers, from 1; empty lines and comments are skipped."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: byte {error.start} is not UTF-8; is this a text file?") from None
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def relative_if_below(name: str, root: Path) -> str:
    """Make an absolute path below the root relative to it; return any other path unchanged."""
    remote = isinstance(root, Address) and "://" in name
    path = as_path(name) if remote else Path(name)
    if remote or path.is_absolute():
        for base in (root.absolute(), root.resolve()):
            if path.is_relative_to(base):
                return path.relative_to(base).as_posix()
    return name

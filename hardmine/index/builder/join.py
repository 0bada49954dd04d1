"""Joins finished indexes, which stay as they are, into one."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from hardmine.addresses import require_local
from hardmine.errors import InputError
from hardmine.index.builder.lock import LOCK, locked
from hardmine.index.storage.files import explain_os_errors
from hardmine.index.storage.joined import is_joined, part_folders, read_stores, write_joined


def join_indexes(
    out: str | Path, parts: Sequence[str | Path], *, add: bool = False
) -> tuple[Path, ...]:
    """Make a folder that opens, searches and verifies as one index of the images of several.

    It holds a list of the parts alone. They are not copied or changed, and each can be updated or
    compacted by itself. All must lie below the folder that holds ``out``, so that they can be moved
    together.

    Args:
        out: Folder of the joined index.
        parts: Indexes of different images, built with the same encoder and clusters. One that is
            joined itself stands for its parts.
        add: Whether to add them to the parts that ``out`` has.

    Returns:
        Folders of all parts, in the order of their images.

    Raises:
        InputError: If ``out`` is an address, or exists and ``add`` is not given, or if a part lies
            elsewhere.
        IndexMismatch: If the parts do not fit together.
        IndexDamaged: If one of them is damaged.
    """
    require_local(out, "a joined index")
    folder = _absolute(out)
    given = [one for part in parts for one in part_folders(_absolute(part))]
    if not given:
        raise InputError("no index to join was given")
    with explain_os_errors(f"write to {folder.parent}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
    if add and not is_joined(folder):
        raise InputError(f"{folder} is not a joined index; make one by joining without --add first")
    new = not folder.exists()
    with locked(folder):
        if not add and {path.name for path in folder.iterdir()} != {LOCK}:
            raise InputError(
                f"{folder} exists; add parts to a joined index with --add (add=True), or choose "
                "another folder"
            )
        try:
            folders = (*part_folders(folder), *given) if add else tuple(given)
            names = [_below(folder.parent, part) for part in folders]
            if len(set(names)) < len(names):
                raise InputError(f"an index is given twice, got {', '.join(names)}")
            read_stores(folders, verify=False)
            write_joined(folder, names)
        except BaseException:
            if new:
                (folder / LOCK).unlink(missing_ok=True)
                folder.rmdir()
            raise
    return folders


def _absolute(path: str | Path) -> Path:
    """An absolute path without "..", whose links stay links: a part may lie on another disk."""
    return Path(os.path.abspath(path))  # noqa: PTH100 (resolve() would follow links)


def _below(above: Path, part: Path) -> str:
    """The way to a part from the folder that holds the joined index."""
    if above not in part.parents:
        raise InputError(
            f"{part} does not lie below {above}, where the joined index is; move one of them, or "
            "make a link there"
        )
    return part.relative_to(above).as_posix()

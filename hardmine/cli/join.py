"""``hardmine index join``: several indexes as one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_action(actions: Any) -> None:
    """Declare the action among those of ``hardmine index``."""
    join = actions.add_parser(
        "join", help="make several indexes one, without copying them; without PART, list its parts"
    )
    join.add_argument("out", type=Path, help="folder of the joined index")
    join.add_argument(
        "parts", nargs="*", type=Path, metavar="PART", help="an index beside or below it"
    )
    join.add_argument("--add", action="store_true", help="add PARTs to those that OUT has")
    join.set_defaults(action_run=_join)


def summary(folder: Path) -> str:
    """A line about each part of an index, or about the index if it is not joined."""
    from hardmine.index.storage.joined import part_folders
    from hardmine.index.storage.manifest import read_manifest

    parts = part_folders(folder)
    if parts == (folder,):
        return read_manifest(folder).summary
    return "\n".join(f"{part}: {read_manifest(part).summary}" for part in parts)


def _join(args: argparse.Namespace) -> int:
    from hardmine.index import join_indexes

    if args.parts:
        join_indexes(args.out, args.parts, add=args.add)
    print(summary(args.out))
    return 0

"""The rooms of the package: who may import whom, as docs/architecture.md says, and their sizes."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import pytest
from toy_data import make_toy_data
from toy_miner import METRICS, make_miner

from hardmine import HardMiningSampler

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
# These only re-export what lies in the rooms, on first use.
FACADES = {"hardmine", "hardmine.index"}


def table() -> dict[str, set[str]]:
    """Rooms in the order of the document, with the rooms they may import."""
    rows = DOCUMENT.partition("| room |")[2].partition("\n\n")[0].splitlines()[2:]
    rooms: dict[str, set[str]] = {}
    for row in rows:
        names, allowed = (re.findall(r"`([\w.]+)`", cell) for cell in row.split("|")[1:3])
        everything = set(rooms) if "all" in row.split("|")[2] else set()
        for name in names:
            rooms[name] = set(allowed) | everything
    return rooms


ROOMS = table()


def room_of(module: str) -> str:
    """The room of a module: the longest name in the table that it lies in."""
    path = module.removeprefix("hardmine.")
    fitting = [room for room in ROOMS if path == room or path.startswith(f"{room}.")]
    return max(fitting, key=len, default=path)


def imported(path: Path) -> Iterator[str]:
    """Names of hardmine's modules that a file imports, at the top or in a function."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module == "hardmine":
            yield from (f"hardmine.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module


def modules(folder: str) -> list[tuple[str, Path]]:
    """Dotted names and files below a folder of the repository."""
    base = ROOT / folder
    found = []
    for path in sorted(base.rglob("*.py")):
        name = ".".join(path.relative_to(base.parent).with_suffix("").parts)
        found.append((name.removesuffix(".__init__"), path))
    return found


def test_the_table_has_a_row_for_every_room_and_no_circle() -> None:
    rooms = {room_of(name) for name, _ in modules("hardmine") if name != "hardmine"}
    assert rooms == set(ROOMS)
    above: set[str] = set()
    for room, allowed in ROOMS.items():
        assert allowed <= above, f"{room} may import {allowed - above}, which stand below it"
        above.add(room)


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_what_its_row_allows(room: str) -> None:
    for name, path in modules("hardmine"):
        if name in FACADES or room_of(name) != room:
            continue
        for other in imported(path):
            # ``from hardmine import load_encoder`` names a function, not a module.
            if not other.startswith("hardmine.") or room_of(other) not in ROOMS:
                continue
            target = room_of(other)
            assert target == room or target in ROOMS[room], f"{name} imports {other}"


def public(module: str) -> set[str]:
    """Names in ``__all__`` of a room's package."""
    path = ROOT / Path(*module.split(".")) / "__init__.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def test_integrations_import_public_names_only() -> None:
    open_modules = {f"hardmine.{name}" for name in ("errors", "records", "config", "distributed")}
    seen = 0
    for name, path in modules("integrations"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hardmine":
                seen += 1
                names = {alias.name for alias in node.names}
                assert not any(one.startswith("_") for one in names), f"{name}: {names}"
                if node.module not in open_modules:
                    private = names - public(node.module or "")
                    assert not private, f"{name} imports {private} from {node.module}"
    assert seen > 10


def test_no_file_is_longer_than_four_hundred_lines() -> None:
    folders = ("hardmine", "integrations", "tests", "examples")
    lengths = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for folder in folders
        for path in (ROOT / folder).rglob("*.py")
    }
    assert {path: count for path, count in lengths.items() if count > 400} == {}


def test_one_step_stays_within_fifteen_modules_of_the_method() -> None:
    """Modules of mining, history and the miner whose own functions run in a step."""
    toy = make_toy_data()
    miner = make_miner(toy, HardMiningSampler(len(toy.images)), contexts=["at night"])
    touched: set[str] = set()

    def note(frame: FrameType, event: str, argument: object) -> None:
        name = frame.f_globals.get("__name__", "")
        # Methods that dataclasses generate have no file.
        if name.startswith("hardmine.") and frame.f_code.co_filename.endswith(".py"):
            touched.add(name)

    sys.setprofile(note)
    try:
        done = miner.step(METRICS)
    finally:
        sys.setprofile(None)
    assert not done.failed
    method = {name for name in touched if room_of(name) in ("mining", "history", "miner")}
    assert {"hardmine.miner", "hardmine.mining.mine", "hardmine.mining.weights"} <= method
    assert len(method) <= 15, sorted(method)


def test_the_glossary_is_short() -> None:
    rows = DOCUMENT.partition("| word |")[2].strip().splitlines()[2:]
    assert 15 < len(rows) <= 25

"""``import hardmine`` and ``hardmine --help`` load nothing heavy."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

import hardmine
from hardmine.cli.main import COMMANDS

HEAVY = ("torch", "open_clip", "faiss", "mmengine", "mmdet", "transformers", "timm")
# Not heavy, but each costs a tenth of a second that --help has no use for.
SLOW = ("numpy", "scipy", "PIL", "pyarrow", "msgspec", "rich", "yaml")


def loaded_after(statement: str, names: tuple[str, ...]) -> set[str]:
    """Which of these modules a fresh interpreter has loaded after a statement."""
    code = f"{statement}\nimport sys\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(eval(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "statement",
    [
        "import hardmine",
        "import hardmine; hardmine.HardmineError, dir(hardmine)",
        "import hardmine.errors, hardmine.records",
        "import hardmine.datasets",
    ],
)
def test_an_import_loads_nothing_heavy(statement: str) -> None:
    assert loaded_after(statement, HEAVY) == set()


def test_the_encoders_are_listed_without_any_library() -> None:
    assert loaded_after("import hardmine.encoders", (*HEAVY, "numpy")) == set()


def test_the_test_can_fail() -> None:
    assert loaded_after("import hardmine, torch", HEAVY) == {"torch"}


def test_help_loads_no_library() -> None:
    statement = (
        "import hardmine.cli.main\n"
        "try: hardmine.cli.main.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0"
    )
    assert loaded_after(statement, HEAVY + SLOW) == set()
    assert loaded_after(f"import rich\n{statement}", HEAVY + SLOW) == {"rich"}


def test_reading_a_data_set_loads_no_torch() -> None:
    statement = (
        "import hardmine.datasets\n"
        "from hardmine.datasets import coco, voc, yolo, nuimages, folder, open_image, detect_format"
    )
    assert loaded_after(statement, HEAVY) == set()


@pytest.mark.parametrize("name", sorted(set(hardmine.__all__) - {"__version__"}))
def test_public_names_are_found_where_they_are_said_to_be(name: str) -> None:
    found = getattr(hardmine, name)
    assert found.__name__ == name
    assert name in dir(hardmine)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'hardmine' has no attribute 'mine'"):
        hardmine.mine  # noqa: B018


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_its_module(name: str) -> None:
    module = importlib.import_module(f"hardmine.cli.{name}")
    assert callable(module.add_arguments)
    assert callable(module.run)

"""What stands in more than one place says the same everywhere."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

import hardmine
from hardmine.cli.checks import declared_requirements

ROOT = Path(__file__).resolve().parents[2]


def test_pre_commit_runs_the_versions_of_the_dev_extra() -> None:
    pyproject = (ROOT / "pyproject.toml").read_text()
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    pinned = {each for hook in hooks for each in hook.get("additional_dependencies", ())}
    assert pinned
    for pin in pinned:
        assert f'"{pin}"' in pyproject


@pytest.mark.parametrize(
    "package",
    ["hardmine", *sorted(path.name for path in (ROOT / "integrations").glob("hardmine_*"))],
)
def test_types_are_shipped(package: str) -> None:
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations is not None
    assert any((Path(place) / "py.typed").is_file() for place in spec.submodule_search_locations)


def test_the_version_stands_in_one_place() -> None:
    stated = [
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "hardmine").rglob("*.py")
        if re.search(r"^__version__\s*=", path.read_text(), re.MULTILINE)
    ]
    assert stated == ["hardmine/_version.py"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", hardmine.__version__)


def test_every_extra_that_an_error_names_exists() -> None:
    _, extras = declared_requirements()
    named = {
        name
        for path in (ROOT / "hardmine").rglob("*.py")
        for name in re.findall(r"MissingExtra\(\s*['\"]([\w-]+)", path.read_text())
    }
    assert named
    assert named <= {*extras}

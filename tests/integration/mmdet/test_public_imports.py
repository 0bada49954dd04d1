"""The integration imports public names of hardmine only."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

import hardmine_mmdet

SOURCES = sorted(Path(hardmine_mmdet.__file__).parent.glob("*.py"))
MODULES = {"hardmine.config", "hardmine.errors", "hardmine.records"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.stem)
def test_public_names_only(path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
            assert not any(name.startswith("hardmine.") for name in names), names
        if not isinstance(node, ast.ImportFrom) or node.module is None:
            continue
        if node.module.split(".")[0] != "hardmine" or node.module in MODULES:
            continue
        public = importlib.import_module(node.module).__all__
        assert node.module.count(".") <= 1, node.module
        assert {alias.name for alias in node.names} <= set(public), node.module

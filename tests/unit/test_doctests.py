"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = [
    ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__")
    for folder in (ROOT, ROOT / "integrations")
    for package in sorted(folder.glob("hardmine*"))
    for path in sorted(package.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstrings_are_true(name: str) -> None:
    module = importlib.import_module(name)
    with np.printoptions(formatter=None, linewidth=75):  # Ultralytics sets others
        found = doctest.testmod(module)
    assert found.attempted > 0
    assert found.failed == 0

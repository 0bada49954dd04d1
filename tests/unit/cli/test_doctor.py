"""``hardmine doctor`` with working, broken and missing packages."""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from hardmine.cli import checks, doctor, trainers
from hardmine.cli.main import main


@pytest.fixture
def packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Installed distributions: one imports, two fail to import, one crashes."""
    bodies = {
        "goodlib": "answer = 42",
        "badlib": "raise OSError('libmissing.so.1: cannot open shared object file')",
        "exitlib": "raise SystemExit(3)",
        "crashlib": "import os; os.abort()",
    }
    for name, body in bodies.items():
        (tmp_path / f"{name}.py").write_text(body)
        record = tmp_path / f"{name}-1.2.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        ("goodlib>=1", {"version": "1.2", "works": True, "error": None}),
        (
            "badlib==1.2",
            {
                "version": "1.2",
                "works": False,
                "error": "OSError: libmissing.so.1: cannot open shared object file",
                "install": "pip install 'hardmine[thing]'",
            },
        ),
        (
            "exitlib",
            {
                "version": "1.2",
                "works": False,
                "error": "SystemExit: 3",
                "install": "pip install 'hardmine[thing]'",
            },
        ),
        (
            "nolib[some]>=2",
            {
                "version": None,
                "works": False,
                "error": None,
                "install": "pip install 'hardmine[thing]'",
            },
        ),
    ],
)
def test_a_package(packages: Path, requirement: str, expected: dict[str, Any]) -> None:
    (found,) = checks.check_packages({"thing": [requirement]})["thing"]
    assert {name: found.get(name) for name in expected} == expected


def test_a_crashing_library_does_not_affect_others(packages: Path) -> None:
    found = checks.check_packages({"": ["goodlib"], "thing": ["crashlib"]})
    (good,), (crash,) = found[""], found["thing"]
    assert good["works"]
    assert not crash["works"]
    assert crash["error"] == "crashes the interpreter (SIGABRT)"


def test_a_broken_base_package_gets_its_own_install_line(packages: Path) -> None:
    (found,) = checks.check_packages({"": ["badlib>=1.2"]})[""]
    assert found["install"] == "pip install --force-reinstall 'badlib>=1.2'"


def test_extras_match_the_package_s_metadata() -> None:
    base, extras = checks.declared_requirements()
    declared = importlib.metadata.metadata("hardmine").get_all("Provides-Extra") or []
    assert {*extras, "dev", "docs"} == {*declared}
    assert any(text.startswith("torch>=") for text in base)
    assert all("extra" not in text for text in base)
    assert extras["faiss"] == ["faiss-cpu>=1.8"]


def test_trainers_are_named_with_their_versions(tmp_path, monkeypatch) -> None:
    for name, version in (("ultralytics", "8.3.0"), ("pytorch-lightning", "2.5.1")):
        record = tmp_path / f"{name.replace('-', '_')}-{version}.dist-info"
        record.mkdir()
        (record / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        )
    extras = {
        "lightning": ["lightning>=2.4", "torchmetrics>=1.4"],
        "ultralytics": ["ultralytics>=8.4.140"],
    }
    monkeypatch.setattr(trainers, "declared_requirements", lambda: ([], extras))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    printed = "\n".join(trainers.lines(trainers.find_trainers()))
    assert re.search(r"Lightning +supported +pytorch-lightning 2.5.1, by hardmine_light", printed)
    assert re.search(r"Ultralytics +not supported +ultralytics 8.3.0", printed)
    assert "pip install 'ultralytics>=8.4.140'" in printed
    assert re.search(r"detectron2 +not installed$", printed, re.MULTILINE)


def test_a_probe_prints_json(packages: Path) -> None:
    command = [sys.executable, "-m", "hardmine.cli.probe", "modules", "goodlib", "goodlib:answer"]
    done = subprocess.run(
        [*command, "goodlib:question"], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == {
        "goodlib": None,
        "goodlib:answer": None,
        "goodlib:question": "AttributeError: goodlib has no question",
    }


def test_names_of_extras_and_their_states_are_apart() -> None:
    extra = {"works": True, "packages": []}
    found = {"hardmine": "1", "python": "3", "platform": "x", "works": True, "packages": []}
    found |= {"tiny": {"error": None}, "trainers": [], "extras": {"transformers": extra}}
    found |= {"machine": {"error": "x"}, "network": {"host": "x", "reachable": True}}
    assert any(re.fullmatch(r"  transformers +works", line) for line in doctor._lines(found))


@pytest.mark.slow
def test_all_checks(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["doctor", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (status == 0) == found["works"]
    broken = [each["name"] for each in found["packages"] if not each["works"]]
    assert broken == []
    assert found["works"], found["tiny"]
    versions = {each["name"]: each["version"] for each in found["packages"]}
    assert versions["torch"] == importlib.metadata.version("torch")
    assert found["machine"]["threads"] >= 1
    assert {each["name"] for each in found["machine"]["caches"]} >= {"huggingface", "torch"}
    assert found["network"]["host"].startswith("http")
    assert isinstance(found["network"]["reachable"], bool)
    for extra in found["extras"].values():
        assert extra["works"] == all(each["works"] for each in extra["packages"])
        for each in extra["packages"]:
            assert each["works"] or each["install"].startswith("pip install ")

"""The command line: exit codes, output streams and messages."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hardmine.cli import main as module
from hardmine.cli.main import COMMANDS, actions_of, in_options, main, make_parser


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for name in COMMANDS:
        assert f"\n    {name} " in shown


def test_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"hardmine {importlib.metadata.version('hardmine')}\n"


@pytest.mark.parametrize("arguments", [[], ["--nonsense"], ["nonsense"]])
def test_wrong_usage_exits_with_2_and_prints_to_stderr(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "usage: hardmine" in shown.err


def test_a_command_s_help_has_its_arguments(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["doctor", "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert "--json" in shown
    assert COMMANDS["doctor"].split(",")[0] in shown


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("serach x", "unknown command 'serach'; did you mean 'search'?"),
        ("zzz", "unknown command 'zzz'\n"),
        ("cite --jsn", "unrecognized arguments: --jsn"),
        ("rounds x.jsonl --htlm=y", "unrecognized arguments: --htlm=y; did you mean '--html'?"),
        ("index build x --out y --clusers z", "--clusers z; did you mean '--clusters'?"),
    ],
)
def test_a_mistyped_name_is_answered_with_the_nearest(
    line: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2
    assert hint in capsys.readouterr().err


def test_workers_mean_the_same_in_every_command() -> None:
    commands = make_parser()[1]
    parsers = (commands["eval"], *actions_of(commands["index"]).values())
    texts = [
        option.help
        for parser in parsers
        for option in parser._actions
        if "--workers" in option.option_strings
    ]
    assert texts == ["threads that decode images (default: one per CPU core, at most 16)"] * 3


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("no image", "no image"),
        (
            "found a, b; pass split=, or the file as annotations=",
            "found a, b; pass --split, or the file as --ann",
        ),
        ("pass source=, and annotations='x.json'", "pass --images, and --ann='x.json'"),
        ("pass the labels (check_files=False loads these alone)", "pass the labels"),
        ("split=train/x.json: no such file", "split=train/x.json: no such file"),
        ("data/split=: no such folder", "data/split=: no such folder"),
        ("pass format='folder' to read", "pass format='folder' to read"),
    ],
)
def test_messages_name_the_options_of_the_command(message: str, shown: str) -> None:
    assert in_options(message, ["--images", "--ann", "--split"]) == shown


def test_the_papers_are_bibtex(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cite"]) == 0
    entries = re.findall(r"^@\w+\{(\w+),\n((?:  .*\n)+)\}", capsys.readouterr().out, re.M)
    assert {"levi2023clusterclip", "radford2021clip"} <= dict(entries).keys()
    for key, fields in entries:
        assert re.search(r"  year +=", fields), key
        assert fields.count("{") == fields.count("}"), key


def test_completion_knows_commands_and_options(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="the extra completion is not installed")
    assert main(["complete", "bash"]) == 0
    script = capsys.readouterr().out
    assert all(word in script for word in (*COMMANDS, "--clusters", "--suggest-slices"))
    shell = subprocess.run(
        ["bash", "-n"], input=script, text=True, capture_output=True, check=False
    )
    assert shell.returncode == 0, shell.stderr


COMMAND = """
from hardmine.errors import InputError

def add_arguments(parser):
    parser.add_argument("do", choices=["answer", "refuse", "err", "interrupt", "nothing"])

def run(args):
    if args.do == "err":
        raise InputError("weights.npy: no such file")
    if args.do == "interrupt":
        raise KeyboardInterrupt
    print("data")
    return {"answer": 0, "refuse": 1, "nothing": None}[args.do]
"""


@pytest.mark.parametrize(
    ("do", "status", "out", "err"),
    [
        ("answer", 0, "data\n", ""),
        ("nothing", 0, "data\n", ""),
        ("refuse", 1, "data\n", ""),
        ("err", 2, "", "hardmine sample: weights.npy: no such file\n"),
        ("interrupt", 130, "", "hardmine sample: interrupted\n"),
    ],
)
def test_a_command_s_result_is_the_exit_status(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    do: str,
    status: int,
    out: str,
    err: str,
) -> None:
    """A command from a file in another folder."""
    import hardmine.cli

    (tmp_path / "sample.py").write_text(COMMAND)
    monkeypatch.setattr(hardmine.cli, "__path__", [*hardmine.cli.__path__, str(tmp_path)])
    monkeypatch.setitem(module.COMMANDS, "sample", "a sample")
    monkeypatch.delitem(sys.modules, "hardmine.cli.sample", raising=False)
    assert main(["sample", do]) == status
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == (out, err)


def test_a_closed_pipe_is_not_an_error() -> None:
    command = f"{sys.executable} -m hardmine.cli.main --help | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.startswith("usage: hardmine")


def test_the_script_runs_main() -> None:
    entry = importlib.metadata.distribution("hardmine").entry_points
    (script,) = (each for each in entry if each.name == "hardmine")
    assert script.load() is main

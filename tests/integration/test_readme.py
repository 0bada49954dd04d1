"""What README and docs show is run, on generated scenes in place of COCO."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from torch.utils.data import DataLoader

from hardmine.cli.main import COMMANDS, main
from hardmine.history.rounds import read_rounds
from hardmine.scenes import write_scenes

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", "\n".join([README, *DOCS]), re.DOTALL)


def python_block(tell_tale: str, replaced: dict[str, str]) -> str:
    [block] = [text for kind, text in BLOCKS if kind == "python" and tell_tale in text]
    for old, new in replaced.items():
        assert block.count(old) == 1, old
        block = block.replace(old, new)
    return block


def test_the_readme_is_short() -> None:
    assert len(re.findall(r"\S*\w\S*", README)) <= 900


def test_the_quick_start_runs_as_it_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(python_block("write_scenes", {}), "README.md", "exec"), {})  # the README is ours
    assert re.search(r"weight \d", capsys.readouterr().out)


def test_the_loops_mine(tmp_path) -> None:
    write_scenes(tmp_path / "scenes", num_images=24, size=96)
    source = repr(str(tmp_path / "scenes"))

    def labels(split: str) -> str:
        return repr(str(tmp_path / "scenes" / "annotations" / f"{split}.json"))

    loop = python_block(
        "train_one_epoch",
        {
            '"data/train2017"': source,
            '"data/annotations/instances_train2017.json"': labels("train"),
            '"RN50x64/openai"': '"tiny"',
            '"coco.hmx"': repr(str(tmp_path / "coco.hmx")),
            "images=images)": f"images=images, rounds={str(tmp_path / 'rounds.jsonl')!r})",
        },
    )
    drawn: list[list[int]] = []
    names = {
        "dataset": list(range(19)),
        "epochs": 3,
        "DataLoader": DataLoader,
        "train_one_epoch": lambda batches: drawn.append(np.concatenate(list(batches)).tolist()),
        "validate": lambda: {"car": 0.05, "tree": 0.6, "person": 0.5},
    }
    exec(compile(loop, "trainers.md", "exec"), names)  # the docs are ours
    assert sorted(drawn[0]) == list(range(19))
    assert sorted(drawn[1]) != sorted(drawn[0])
    assert [done.error for done in read_rounds(tmp_path / "rounds.jsonl")] == [""] * 3

    contexts = python_block(
        "val_detections",
        {
            '"data/val2017"': source,
            '"data/annotations/instances_val2017.json"': labels("val"),
            '"coco-val.hmx"': repr(str(tmp_path / "coco-val.hmx")),
            "contexts=": "strict=True, contexts=",
        },
    )
    exec(compile(contexts, "trainers.md", "exec"), names | {"results": []})
    assert (tmp_path / "coco-val.hmx").is_dir()


COMMAND_LINES = [
    line.split("#")[0].rstrip(" \\")
    for kind, text in BLOCKS
    if not kind
    for line in text.splitlines()
    if line.startswith("hardmine ")
]


@pytest.mark.parametrize("line", dict.fromkeys(COMMAND_LINES))
def test_the_commands_exist_with_these_options(line, capsys) -> None:
    words = shlex.split(line)[1:]
    assert words[0] in COMMANDS
    nested = words[:2] if words[0] == "index" else words[:1]
    with pytest.raises(SystemExit) as stop:
        main([*nested, "--help"])
    assert stop.value.code == 0
    help_text = capsys.readouterr().out
    for option in (word for word in words if word.startswith("-")):
        assert re.search(rf"(^|[\s,\[]){re.escape(option)}\b", help_text), option


def test_all_the_commands_of_interest_are_shown() -> None:
    shown = {shlex.split(line)[1] for line in COMMAND_LINES if line in README}
    assert {"index", "search", "eval", "regions", "report", "rounds", "doctor"} <= shown

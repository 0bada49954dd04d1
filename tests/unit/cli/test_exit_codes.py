"""Every command's exit status: 0 success, 1 a negative result, 2 a mistake in what was given."""

from __future__ import annotations

from pathlib import Path

import pytest
from pixel_images import write_images

from hardmine.cli.main import COMMANDS, main
from hardmine.encoders import load_encoder
from hardmine.index import build_index, update_index

Captured = pytest.CaptureFixture[str]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: photos, broken JSON, an empty file, and a folder that is no index."""
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", 1)
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("not an index")
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_exits_with_2(command: str, capsys: Captured) -> None:
    with pytest.raises(SystemExit) as stop:
        main([command, "--nonsense"])
    assert stop.value.code == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert f"usage: hardmine {command}" in shown.err


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("demo --out full", "full holds other files"),
        ("demo --images 1", "at least 2"),
        ("scenes full", "full is not an empty folder"),
        ("index build none --out x.hmx", "none"),
        ("index build photos --out full", "full"),
        ("index update none .", "none"),
        ("index info full", "full"),
        ("index compact none", "none"),
        ("search none car", "none"),
        ("search full car", "full"),
        ("regions none.jpg --json", "none.jpg"),
        ("regions broken.json --json", "broken.json"),
        ("regions photos/0.jpg --json --clusters kmean:3", "kmean"),
        ("regions photos/0.jpg --json --encoder tinny", "tinny"),
        ("eval none --ann broken.json", "broken.json"),
        ("eval full --ann none.json", "none.json"),
        ("report --metrics none.csv", "none.csv"),
        ("report --detections broken.json", "--val-ann"),
        ("bench training --seeds 0", "--seeds must be at least 1, got 0"),
        ("serve none --no-browser", "none"),
        ("collect none --ann broken.json --pool none", "none"),
        ("collect full --ann broken.json --pool full --budget 0", "1 to 500, got 0"),
        ("collect full --ann broken.json --pool full --export cvat", "--out FILE go together"),
        ("rounds none.jsonl", "none.jsonl"),
        ("rounds empty.jsonl", "no round is complete"),
    ],
)
def test_a_mistake_exits_with_2_names_it_and_writes_nothing(
    line: str, named: str, folder: Path, capsys: Captured
) -> None:
    before = sorted(folder.rglob("*"))
    assert main(line.split()) == 2
    shown = capsys.readouterr()
    command = line.split()[0]
    assert shown.err.rpartition(f"hardmine {command}: ")[2].count("\n") <= 3
    assert named in shown.err
    assert "Traceback" not in shown.err
    assert sorted(folder.rglob("*")) == before


def test_nothing_found_exits_with_1(folder: Path, capsys: Captured) -> None:
    images = write_images(folder / "images", 1)
    encoder = load_encoder("tiny")
    build_index(images, encoder, "x.hmx")
    update_index("x.hmx", images.subset([]), encoder)
    assert main(["search", "x.hmx", "a car"]) == 1
    assert capsys.readouterr().out == ""

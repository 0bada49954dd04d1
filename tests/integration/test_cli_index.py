"""``hardmine index`` from the command line, with the offline encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pixel_images import PixelEncoder, folder_bytes, write_image, write_images

from hardmine.cli.main import main
from hardmine.errors import IndexMismatch
from hardmine.index import build_index, read_manifest
from hardmine.index.builder import executor
from hardmine.index.open import stored_encoder

Captured = pytest.CaptureFixture[str]


def run(*arguments: str | Path) -> int:
    return main(["index", *map(str, arguments)])


def test_build_info_verify_update_and_compact(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = tmp_path / "images", tmp_path / "x.hmx"
    write_images(files, 7, broken=[3])
    build = ["build", files, "--out", out, "--clusters", "kmeans:2", "--shard-size", 3]
    assert run(*map(str, build)) == 0
    output = capsys.readouterr()
    assert output.out == ""
    assert "6 images, 1 skipped, 12 regions" in output.err
    assert "3.jpg: cannot be decoded" in output.err

    assert run("info", out, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["encoder"] == "tiny"
    assert (facts["images"], facts["broken"], facts["removed"]) == (6, 1, 0)
    assert (facts["regions"], facts["shards"], facts["clusters"]) == (12, 3, "kmeans:2")
    assert list(facts["problems"]) == ["3.jpg"]
    assert run("info", out) == 0
    assert "kmeans:2" in capsys.readouterr().out
    assert stored_encoder(out).fingerprint == facts["encoder_fingerprint"]

    assert run("verify", out) == 0
    assert capsys.readouterr().out == ""

    write_image(files / "9.jpg", 9)
    (files / "0.jpg").unlink()
    assert run("update", out, files, "--dry-run", "--json") == 0
    changes = json.loads(capsys.readouterr().out)
    assert changes == {"added": 1, "changed": 0, "removed": 1}

    def make_shards(*arguments: Any) -> None:
        print("a node was lost")  # as Ray does
        executor.make_shards(*arguments)

    monkeypatch.setattr("hardmine.index.builder.update.make_shards", make_shards)
    assert run("update", out, files, "--json") == 0
    output = capsys.readouterr()
    assert json.loads(output.out) == changes
    assert "a node was lost" in output.err
    assert read_manifest(out).images.count == 7
    assert run("compact", out) == 0
    assert "MiB freed" in capsys.readouterr().err
    assert run("info", out, "--json") == 0
    assert json.loads(capsys.readouterr().out)["removed"] == 0

    path = next((out / "shards").glob("*.npy"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert run("verify", out) == 1
    assert path.name in capsys.readouterr().out


def test_errors_are_one_line(tmp_path: Path, capsys: Captured) -> None:
    files, out = tmp_path / "images", tmp_path / "x.hmx"
    images = write_images(files, 3)
    for arguments, message in (
        (["build", files, "--out", out, "--clusters", "kmean"], 'did you mean "kmeans"'),
        (["build", files, "--out", out, "--encoder", "tinny"], "tinny"),
        (["build", tmp_path / "none", "--out", out], "no such file or folder"),
        (["build", files, "--out", files], "neither empty nor an index"),
        (["info", tmp_path / "none"], "no index at"),
        (["compact", files], "is not an index"),
        (["update", files, files], "is not an index"),
    ):
        assert run(*arguments) == 2
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err.startswith("hardmine index: ")
        assert message in output.err
    build_index(images, PixelEncoder(), tmp_path / "own")
    assert run("update", tmp_path / "own", files, "--yes") == 2
    assert "built with an encoder that has no name" in capsys.readouterr().err
    with pytest.raises(IndexMismatch, match="pass that encoder"):
        stored_encoder(tmp_path / "own")


def test_limit_takes_the_first_images(tmp_path: Path) -> None:
    write_images(tmp_path / "images", 5)
    out = tmp_path / "x.hmx"
    arguments = ["build", tmp_path / "images", "--out", out, "--limit", "2", "--quantize", "int8"]
    assert run(*arguments) == 0
    manifest = read_manifest(out)
    assert (manifest.images.count, manifest.dtype) == (2, "int8")
    assert run(*arguments, "--restart", "--clusters", "whole") == 0
    assert read_manifest(out).clusters.spec == "whole"


def test_a_finished_index_is_opened_without_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "images", 3)
    build = ["build", tmp_path / "images", "--out", tmp_path / "x.hmx", "--clusters", "whole"]
    assert run(*build) == 0

    def locked(folder: Path) -> None:
        raise AssertionError("locked")

    monkeypatch.setattr("hardmine.index.builder.lock.locked", locked)
    monkeypatch.setattr("hardmine.index.builder.build.locked", locked)
    assert run(*build) == 0


def test_an_update_with_a_wrong_folder_asks(
    tmp_path: Path, capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    files, out = tmp_path / "images", tmp_path / "x.hmx"
    write_images(files, 6)
    for number in range(6):
        write_image(tmp_path / "other" / f"{number}.png", number)
    assert run("build", files, "--out", out, "--clusters", "whole") == 0
    before = folder_bytes(out)
    capsys.readouterr()
    assert run("update", out, tmp_path / "other") == 2
    message = " ".join(capsys.readouterr().err.split())
    assert "would lose 6 of its 6 images (6 are not listed" in message
    assert "looks like another data set" in message
    assert "repeat with --yes" in message
    for number in range(4):
        (files / f"{number}.jpg").unlink()
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("rich.console.Console.input", lambda *_: "n")
    assert run("update", out, files) == 2
    assert "a part is missing, or is not mounted" in " ".join(capsys.readouterr().err.split())
    assert folder_bytes(out) == before
    monkeypatch.setattr("rich.console.Console.input", lambda *_: "y")
    assert run("update", out, files) == 0
    assert run("update", out, tmp_path / "other", "--yes") == 0
    assert read_manifest(out).images.count == 6

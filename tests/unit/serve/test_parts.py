"""Parts of the server without HTTP: background values, bounded caches, decisions on disk."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image
from toy_data import WordEncoder, make_toy_data

from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.index.search.exact import ExactIndex
from hardmine.serve import Workspace
from hardmine.serve import thumbnails as module
from hardmine.serve.background import Background
from hardmine.serve.checks import Decisions
from hardmine.serve.questions import Kept
from hardmine.serve.thumbnails import Thumbnails


def test_a_background_value_is_made_again_when_its_stamp_changes() -> None:
    stamp, made = [0], []

    def make() -> int:
        made.append(stamp[0])
        if stamp[0] == 1:
            raise InputError("half written")
        return stamp[0]

    value = Background(make, lambda: stamp[0])
    assert value.wait(10).value == 0
    assert value.wait(10).version == 1
    stamp[0] = 1
    failed = value.wait(10)
    assert (failed.value, failed.error) == (0, "half written")  # the last good one stays
    stamp[0] = 2
    assert (value.wait(10).value, value.wait(10).error) == (2, "")
    assert made == [0, 1, 2]


def test_a_kept_value_is_dropped_when_used_longest_ago() -> None:
    kept: Kept[int] = Kept(2)
    kept.put("a", 1)
    kept.put("b", 2)
    assert kept.get("a") == 1
    kept.put("c", 3)
    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_thumbnails_are_made_once_and_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [tmp_path / f"{number}.png" for number in range(6)]
    for file in files:
        Image.effect_noise((400, 300), 90).save(file)
    made: list[Path] = []
    original, lock = module.small_jpeg, threading.Lock()

    def counted(image: Path, **options: int) -> tuple[bytes, tuple[int, int]]:
        with lock:
            made.append(image)
        return original(image, **options)

    monkeypatch.setattr(module, "small_jpeg", counted)
    cache = Thumbnails()
    with ThreadPoolExecutor(8) as pool:
        copies = list(pool.map(cache.get, [files[0]] * 32))
    assert len(set(copies)) == 1
    assert len(made) == 1
    small = Thumbnails(limit=len(copies[0]) * 3)
    for file in files:
        small.get(file)
    assert 0 < small.num_bytes <= small.limit
    (tmp_path / "broken.png").write_bytes(b"no picture")
    for _ in range(2):
        with pytest.raises(InputError, match="cannot be decoded"):
            cache.get(tmp_path / "broken.png")


@pytest.mark.parametrize(
    ("paths", "expected"),
    [
        pytest.param(["a.png", "b.png"], [], id="no folders"),
        pytest.param(["train2017/a.png", "train2017/b.png"], [], id="one holds all"),
        pytest.param(["a.png", "val/b.png"], ["val"], id="some at the top"),
        pytest.param(
            ["images/train/x/a.png", "images/train/y/b.png", "images/val/c.png"],
            ["images/train", "images/train/x", "images/train/y", "images/val"],
            id="below splits",
        ),
        pytest.param(
            [f"{split}/clip{number}/a.png" for split in ("train", "val") for number in range(60)],
            ["train", "val"],
            id="too many clips",
        ),
    ],
)
def test_folders_to_choose_images_by(paths: list[str], expected: list[str]) -> None:
    store = make_toy_data(len(paths)).index.store
    index = ExactIndex(replace(store, paths=tuple(paths)))
    space = Workspace("toy", index, WordEncoder())
    assert list(space.folders) == expected
    for name in expected:
        inside = [path.startswith(f"{name}/") for path in paths]
        assert space.in_folder(name).tolist() == inside


def mined(image_id: int) -> MinedImage:
    return MinedImage(image_id, "a.png", "car", "suspect", 0.5, (0, 0, 1, 1), (10, 10), 1.0)


def test_a_decision_survives_a_kill_in_the_middle_of_a_line(tmp_path: Path) -> None:
    file = tmp_path / "checks.jsonl"
    decisions = Decisions(file)
    decisions.add(mined(1), "missing")
    decisions.add(mined(2), "other")
    whole = file.read_bytes()
    last = whole.rindex(b"\n", 0, -1) + 1
    for end in range(last, len(whole), 9):
        file.write_bytes(whole[:end])
        again = Decisions(file)
        assert again.of(1, "car") == "missing"
        assert again.of(2, "car") in ("open", "other")
        again.add(mined(3), "skip")
        assert Decisions(file).of(3, "car") == "skip"
    file.write_bytes(b"{}\n" + whole)
    with pytest.raises(InputError, match="line 1 is not an answer"):
        Decisions(file)

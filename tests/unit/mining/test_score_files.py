"""Scores kept beside the index: the next run reads them, and never wrong ones."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from toy_data import WordEncoder, make_toy_data

from hardmine.index.search.exact import ExactIndex
from hardmine.mining.score_files import ScoreFiles
from hardmine.mining.scores import ScoreCache

TOY = make_toy_data(40)
ASKED = [("car",), ("fork",)]


class OnDisk(ExactIndex):
    """The toy index as if it lay in a folder; counts the vectors it scores."""

    scored = passes = 0

    def __init__(self, folder: Path, digest: str = "ab" * 32) -> None:
        super().__init__(replace(TOY.index.store, folder=folder / "toy.hmx", digest=digest))

    def iter_scores(self, vectors):
        self.scored += len(vectors)
        self.passes += 1
        return super().iter_scores(vectors)


@pytest.fixture(autouse=True)
def every_index_is_worth_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardmine.mining.scores._MIN_REGIONS", 0)


def run(index: OnDisk, **options: int) -> list[np.ndarray]:
    """What a run of its own sees."""
    ids = np.append(TOY.images.ids[::-1], 5)  # not in the order of the index, one unknown
    return list(ScoreCache(index, WordEncoder(), ids, num_classes=3, **options).each(ASKED))


def test_the_next_run_reads_what_the_first_computed_to_the_bit(tmp_path: Path) -> None:
    first, again, half = OnDisk(tmp_path), OnDisk(tmp_path), OnDisk(tmp_path)
    expected = run(first)
    assert np.array_equal(run(again), expected)
    assert (first.scored, again.scored) == (2, 0)
    assert np.allclose(run(half, max_bytes=300), expected, atol=1e-3)  # other files
    assert half.scored == 2
    assert np.array_equal(run(OnDisk(tmp_path), max_bytes=300), run(half, max_bytes=300))


def test_more_scores_than_memory_take_one_pass_and_go_through_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run(OnDisk(tmp_path / "other"), max_bytes=300)
    monkeypatch.setattr("hardmine.index.search.exact._SCORES", 20)  # chunks of 10 images
    index, few = OnDisk(tmp_path), {"max_bytes": 100}  # one row of float16
    assert np.array_equal(run(index, **few), expected)
    assert (index.passes, index.scored) == (1, 2)
    assert np.array_equal(run(OnDisk(tmp_path), max_bytes=300), expected)
    assert len(list(tmp_path.glob("toy.hmx.scores/*/*"))) == 2


def test_without_room_on_disk_each_group_takes_a_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardmine.mining.scores._MIN_DISK_BYTES", 0)
    monkeypatch.setattr("hardmine.mining.scores._DISK_SHARE", 0)
    index = OnDisk(tmp_path)
    assert np.array_equal(run(index, max_bytes=100), run(OnDisk(tmp_path / "x"), max_bytes=300))
    assert (index.passes, index.scored) == (2, 2)


def test_a_broken_off_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ScoreFiles(tmp_path / "i", "ab" * 32, num_images=8, dtype=np.float32, max_bytes=1000)

    def blocks():
        yield np.zeros((2, 4), np.float32)
        raise OSError(28, "No space left on device")

    files.write(np.eye(2, dtype=np.float32), blocks())
    assert list(files.folder.iterdir()) == []
    assert not files.have_room(1)  # and nothing more is tried


@pytest.mark.parametrize("harm", ["a bit", "the end", "one more"])
def test_a_damaged_file_is_made_anew(harm: str, tmp_path: Path) -> None:
    expected = run(OnDisk(tmp_path))
    damaged = sorted(tmp_path.glob("toy.hmx.scores/*/*.f32"))[0]
    whole = damaged.read_bytes()
    contents = {"a bit": b"\0" + whole[1:], "the end": whole[:-1], "one more": whole + b"\0"}
    damaged.write_bytes(contents[harm])
    index = OnDisk(tmp_path)
    assert np.array_equal(run(index), expected)
    assert index.scored == 1
    assert damaged.read_bytes() == whole


def test_scores_of_another_version_of_the_index_are_neither_used_nor_kept(tmp_path: Path) -> None:
    run(OnDisk(tmp_path))
    (tmp_path / "toy.hmx.scores" / "notes").mkdir()
    changed = OnDisk(tmp_path, digest="cd" * 32)
    run(changed)
    assert changed.scored == 2
    assert {path.name for path in (tmp_path / "toy.hmx.scores").iterdir()} == {"cd" * 8, "notes"}


def test_where_nothing_can_be_written_mining_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "toy.hmx.scores").write_text("a file in the way")
    index = OnDisk(tmp_path)
    cache = ScoreCache(index, WordEncoder(), TOY.images.ids, num_classes=3)
    with caplog.at_level(logging.WARNING):
        cache.rows(ASKED)
        cache.rows([("zebra",)])
    assert index.scored == 3
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "scores are not kept for the next run, which computes them again"
    ]


def test_disk_space_is_bounded_and_what_was_used_last_stays(tmp_path: Path) -> None:
    files = ScoreFiles(tmp_path / "i", "ab" * 32, num_images=8, dtype=np.float32, max_bytes=2 * 64)
    vectors = np.eye(3, dtype=np.float32)
    rows = np.arange(24, dtype=np.float32).reshape(3, 8)
    files.write(vectors[:2], [rows[:2]])
    for path in files.folder.iterdir():
        os.utime(path, (0, 0))
    assert np.array_equal(files.read(vectors[0]), rows[0])
    files.write(vectors[2:], [rows[2:]])
    assert files.read(vectors[1]) is None
    assert np.array_equal(files.read(vectors[0]), rows[0])
    assert np.array_equal(files.read(vectors[2]), rows[2])

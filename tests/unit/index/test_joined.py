"""Several indexes joined into one answer as one index over the same images does."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pytest
from joined_weeks import Weeks, make_weeks, require_same_answers
from pixel_images import PixelEncoder, folder_bytes, list_images, write_images

from hardmine.cli.main import main
from hardmine.errors import HardmineError, IndexDamaged, IndexMismatch, InputError
from hardmine.index import (
    build_index,
    join_indexes,
    open_index,
    stored_encoder,
    update_index,
    verify_index,
)
from hardmine.index.base import Index
from hardmine.index.remote import local_index
from hardmine.index.sharded.holder import Holder, split_parts
from hardmine.index.sharded.index import ShardedIndex
from hardmine.index.sharded.over_ranks import _Here
from hardmine.index.storage.joined import part_folders
from hardmine.mining.scores import ScoreCache


@pytest.fixture(scope="module")
def weeks(tmp_path_factory: pytest.TempPathFactory) -> Weeks:
    return make_weeks(tmp_path_factory.mktemp("weeks"))


def test_answers_are_those_of_one_index(weeks: Weeks) -> None:
    index = open_index(weeks.folder / "all.hmx", encoder=PixelEncoder(), images=weeks.images)
    require_same_answers(index, weeks.whole)


def test_a_part_is_added_without_touching_the_others(weeks: Weeks) -> None:
    week1, week2 = weeks.folder / "week1.hmx", weeks.folder / "week2.hmx"
    before = folder_bytes(week1)
    out = weeks.folder / "growing.hmx"
    assert main(["index", "join", str(out), str(week1)]) == 0
    assert main(["index", "join", str(out), str(week2), "--add"]) == 0
    assert len(open_index(out)) == 12
    assert folder_bytes(week1) == before


def test_it_moves_with_its_parts_and_is_opened_like_one_index(
    weeks: Weeks, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved"
    shutil.copytree(weeks.folder, moved)
    assert verify_index(moved / "all.hmx") == ()
    assert main(["index", "verify", str(moved / "all.hmx")]) == 0
    shown = " ".join(capsys.readouterr().err.split())
    assert "week3.hmx: 8 images, 24 regions of 8 float16" in shown
    index = build_index(weeks.images, PixelEncoder(), moved / "all.hmx", clusters="kmeans:3")
    assert len(index) == 20
    assert open_index(moved / "all.hmx", root=tmp_path).root == tmp_path
    with pytest.raises(IndexMismatch, match="no name"):
        stored_encoder(moved / "all.hmx")
    (path,) = (moved / "week2.hmx" / "shards").glob("00000.vectors.npy")
    path.write_bytes(path.read_bytes()[:-1] + b"\7")
    assert len(verify_index(moved / "all.hmx")) == 1


def test_an_updated_part_is_found(weeks: Weeks, tmp_path: Path) -> None:
    for week in ("week1", "week2"):
        shutil.copytree(weeks.folder / f"{week}.hmx", tmp_path / f"{week}.hmx")
    parts = [tmp_path / "week1.hmx", tmp_path / "week2.hmx"]
    assert join_indexes(tmp_path / "all.hmx", parts) == tuple(parts)
    with pytest.raises(IndexDamaged, match=r"do this to its parts, which hardmine index join"):
        update_index(tmp_path / "all.hmx", weeks.images, PixelEncoder())
    # Image 6 is gone; joined in another index, a joined index stands for its parts.
    fewer = list_images(weeks.folder / "images" / "week1", range(6))
    update_index(parts[0], fewer, PixelEncoder())
    assert join_indexes(tmp_path / "more.hmx", [tmp_path / "all.hmx"]) == tuple(parts)
    for name in ("all", "more"):
        index = open_index(tmp_path / f"{name}.hmx")
        assert index.ids.tolist() == [number * 10 for number in range(12) if number != 6]
    with pytest.raises(IndexMismatch, match="joins 11 images, of which the data set of 20 lacks 0"):
        open_index(tmp_path / "all.hmx", images=weeks.images)


def test_scores_are_kept_beside_it_until_a_part_changes(
    weeks: Weeks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of one process and of several are the same files; several are not asked again."""
    monkeypatch.setattr("hardmine.mining.scores._MIN_REGIONS", 0)
    monkeypatch.setattr("hardmine.index.sharded.index._SCORES", 4)  # a few images at a time
    moved = tmp_path / "moved"
    shutil.copytree(weeks.folder, moved)
    queries = [("car",), ("at night",), ("fork",)]

    def over_two() -> ShardedIndex:
        groups = split_parts(part_folders(moved / "all.hmx"), 2)
        holders = [Holder(folders) for folders in groups]
        held = [holder.describe() for holder in holders]
        return ShardedIndex([_Here(one) for one in holders], held, moved / "all.hmx")

    def run(index: Index, **options: int) -> list[np.ndarray]:
        ids = weeks.images.ids[::-1]
        return list(ScoreCache(index, PixelEncoder(), ids, num_classes=2, **options).each(queries))

    def kept() -> set[Path]:
        return set((moved / "all.hmx.scores").glob("*/*"))

    expected = run(weeks.whole)
    np.testing.assert_array_equal(run(over_two(), max_bytes=160), expected)  # two rows
    first = kept()
    assert len(first) == 3
    for index in (over_two(), open_index(moved / "all.hmx")):
        monkeypatch.setattr(index, "iter_scores", None)
        np.testing.assert_array_equal(run(index), expected)

    fewer = list_images(moved / "images" / "week2", range(7, 11))
    update_index(moved / "week2.hmx", fewer, PixelEncoder())
    expected = [np.where(weeks.images.ids[::-1] == 110, -np.inf, row) for row in expected]
    np.testing.assert_array_equal(run(over_two()), expected)
    assert len(kept()) == 3
    assert not kept() & first


def test_an_address_opens_and_only_changed_parts_are_fetched_again(
    weeks: Weeks, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    for name in ("all", "week1", "week2", "week3"):
        shutil.copytree(weeks.folder / f"{name}.hmx", tmp_path / "there" / f"{name}.hmx")
    bucket, address = fsspec.filesystem("memory"), "memory://bucket/all.hmx"
    bucket.put(str(tmp_path / "there"), "/bucket", recursive=True)
    try:
        index = open_index(address, encoder=PixelEncoder(), images=weeks.images)
        require_same_answers(index, weeks.whole)
        first = local_index(address)
        assert verify_index(first) == ()
        bucket.rm("/bucket/week1.hmx/shards", recursive=True)  # another fetch would fail

        fewer = list_images(weeks.folder / "images" / "week2", range(7, 11))
        update_index(tmp_path / "there" / "week2.hmx", fewer, PixelEncoder())
        bucket.rm("/bucket/week2.hmx", recursive=True)
        bucket.put(str(tmp_path / "there" / "week2.hmx"), "/bucket/week2.hmx", recursive=True)
        assert open_index(address).ids.tolist() == [n * 10 for n in range(20) if n != 11]
        assert len(open_index(first)) == 20

        join_indexes(weeks.folder / "itself.hmx", [weeks.folder / "week1.hmx"])
        listed = weeks.folder / "itself.hmx" / "joined.json"
        bucket.put(str(listed), "/bucket/week1.hmx/joined.json")
        with pytest.raises(IndexDamaged, match="lists itself"):
            open_index("memory://bucket/week1.hmx")
        monkeypatch.setenv("HARDMINE_CACHE_GIB", "0.00001")  # enough for any one part
        with pytest.raises(HardmineError, match=r"all\.hmx has .* GiB, more than"):
            open_index(address)
    finally:
        bucket.rm("/bucket", recursive=True)


def test_what_does_not_fit_is_not_joined(weeks: Weeks, tmp_path: Path) -> None:
    week1, folder = weeks.folder / "week1.hmx", weeks.folder
    images = write_images(folder / "others", 3)
    build_index(images, PixelEncoder(), folder / "same-ids.hmx", clusters="kmeans:3")
    build_index(images, PixelEncoder(1), folder / "encoder.hmx", clusters="kmeans:3")
    build_index(images, PixelEncoder(), folder / "clusters.hmx", clusters="kmeans:2")
    names = replace(images, ids=np.array(["a", "b", "c"]))
    build_index(names, PixelEncoder(), folder / "names.hmx", clusters="kmeans:3")
    for other, message in (
        ("same-ids", r"3 image ids are in more than one index, e\.g\. 0 in .*week1.* and .*same-"),
        ("encoder", "its encoder is pixels-1, expected pixels-0"),
        ("clusters", "its clusters is kmeans:2, expected kmeans:3"),
        ("names", r"all text or all numbers.*week1\.hmx numbers, .*names\.hmx text"),
    ):
        with pytest.raises(IndexMismatch, match=message):
            join_indexes(folder / "bad.hmx", [week1, folder / f"{other}.hmx"])
    for parts, message in (
        ([], "no index"),
        ([week1, week1], "given twice"),
        ([folder / "images"], "is not an index"),
    ):
        with pytest.raises((InputError, IndexDamaged), match=message):
            join_indexes(folder / "bad.hmx", parts)
    with pytest.raises(InputError, match="does not lie below"):
        join_indexes(tmp_path / "bad.hmx", [week1])
    with pytest.raises(InputError, match="is not a joined index"):
        join_indexes(week1, [folder / "week2.hmx"], add=True)
    with pytest.raises(InputError, match="exists; add parts"):
        join_indexes(folder / "all.hmx", [week1])
    assert not (folder / "bad.hmx").exists()
    assert len(open_index(folder / "all.hmx")) == 20


def test_an_altered_list_of_parts_is_refused(weeks: Weeks, tmp_path: Path) -> None:
    content = (weeks.folder / "all.hmx" / "joined.json").read_text()
    for old, new, message in (
        ("week3.hmx", "week4.hmx", "its checksum does not match"),
        ("week3.hmx", "../week3.hmx", "checksum"),
        ('"format": 1', '"format": 2', "has format 2"),
        ("{", "[", "damaged"),
    ):
        (tmp_path / "joined.json").write_text(content.replace(old, new))
        with pytest.raises((IndexDamaged, IndexMismatch), match=message):
            open_index(tmp_path)

"""After updating and compacting, hits and scores equal those of a new build."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pixel_images import PixelEncoder, folder_bytes, list_images, write_image, write_images

from hardmine.errors import IndexDamaged, IndexMismatch, InputError
from hardmine.index import (
    build_index,
    compact_index,
    open_index,
    read_manifest,
    update_index,
    verify_index,
)
from hardmine.index.base import Index
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.update import find_changes
from hardmine.index.storage.read import read_images
from hardmine.records import ImageSet

QUERIES = PixelEncoder().encode_texts(["a", "b", "night", "zebra"])


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Images 0 to 9, of which 7 is broken, indexed in shards of 4."""
    images = write_images(tmp_path / "images", 10, broken=[7])
    build_index(images, PixelEncoder(), tmp_path / "out", clusters="none", shard_size=4)
    return tmp_path


def changes(place: Path, images: ImageSet) -> str:
    return str(find_changes(read_images(place / "out", read_manifest(place / "out")), images))


def update(place: Path, images: ImageSet) -> tuple[Index, int]:
    """Update the index; return it and the number of images that were encoded."""
    seen: list[Progress] = []
    index = update_index(place / "out", images, PixelEncoder(), shard_size=4, progress=seen.append)
    return index, seen[-1].fresh if seen else 0


def assert_equals_new_build(place: Path, index: Index, images: ImageSet) -> None:
    fresh = build_index(images, PixelEncoder(), place / "fresh", clusters="none", resume=False)
    assert index.ids.tolist() == fresh.ids.tolist()
    assert index.paths == fresh.paths
    np.testing.assert_array_equal(index.sizes, fresh.sizes)
    np.testing.assert_array_equal(index.scores(QUERIES), fresh.scores(QUERIES))
    hits, expected = index.search(QUERIES, 5), fresh.search(QUERIES, 5)
    np.testing.assert_array_equal(hits.image_rows, expected.image_rows)
    np.testing.assert_array_equal(hits.boxes, expected.boxes)
    assert verify_index(place / "out") == ()


@pytest.mark.parametrize(
    ("numbers", "encoded"),
    [
        (range(10), 0),  # no change
        (range(9, -1, -1), 0),  # another order
        (range(12), 2),  # two more
        ([0, 1, 2, 8, 9], 0),  # fewer
        ([11, 9, 3, 10, 5], 2),  # all at once
        ([10, 11], 2),  # others
        ([7], 0),  # the broken one alone
        ([], 0),  # none at all
    ],
)
def test_an_update_encodes_new_images_and_equals_a_new_build(
    place: Path, numbers: Any, encoded: int
) -> None:
    for number in (10, 11):
        write_image(place / "images" / f"{number}.jpg", number)
    images = list_images(place / "images", numbers)
    before = folder_bytes(place / "out")
    index, fresh = update(place, images)
    assert fresh == encoded
    if list(numbers) == list(range(10)):
        assert folder_bytes(place / "out") == before
    if len(index):
        assert_equals_new_build(place, index, images)
    else:
        assert index.search(QUERIES, 3).found.sum() == 0
        assert not list((place / "out" / "shards").iterdir())
    assert update(place, images)[1] == 0


def test_a_removed_image_never_comes_back(place: Path) -> None:
    gone = 3
    kept = [number for number in range(10) if number != gone]
    index, _ = update(place, list_images(place / "images", kept))
    hits = index.search(QUERIES, 100)
    found = {index.ids[row] for row in hits.image_rows[hits.found].tolist()}
    assert found == {10 * number for number in kept if number != 7}
    assert index.scores(QUERIES).shape == (4, 8)
    compact_index(place / "out", shard_size=4)
    assert 10 * gone not in open_index(place / "out").ids
    # Added again, it is encoded again.
    images = list_images(place / "images", range(10))
    index, fresh = update(place, images)
    assert fresh == 1
    assert_equals_new_build(place, index, images)


def test_a_new_time_is_no_change_and_new_content_is_one(place: Path) -> None:
    images = list_images(place / "images", range(10))
    files = place / "images"
    os.utime(files / "0.jpg", ns=(1, 1))
    assert changes(place, images) == "0 added, 0 changed, 0 removed"
    assert update(place, images)[1] == 0
    # The new time is stored, so that the next update does not read the content again.
    facts = read_images(place / "out", read_manifest(place / "out")).facts
    assert facts[0].mtime_ns == 1
    content = bytearray((files / "1.jpg").read_bytes())
    content[-40] ^= 4
    (files / "1.jpg").write_bytes(content)  # the same length
    write_image(files / "2.jpg", 99)
    write_image(files / "7.jpg", 7)  # the broken one, repaired
    (files / "8.jpg").unlink()
    assert changes(place, images) == "0 added, 4 changed, 0 removed"
    index, fresh = update(place, images)
    assert fresh == 4
    assert index.ids.tolist() == [0, 10, 20, 30, 40, 50, 60, 70, 90]
    assert_equals_new_build(place, index, images)


def test_a_moved_image_keeps_its_vectors(place: Path) -> None:
    (place / "images" / "sub").mkdir()
    (place / "images" / "2.jpg").rename(place / "images" / "sub" / "2.jpg")
    before = list_images(place / "images", range(10))
    paths = tuple("sub/2.jpg" if path == "2.jpg" else path for path in before.paths)
    images = ImageSet(before.root, before.ids, paths, before.sizes)
    index, fresh = update(place, images)
    assert fresh == 0
    assert_equals_new_build(place, index, images)


def test_a_data_set_that_moved_is_found_in_its_new_folder(place: Path) -> None:
    (place / "images").rename(place / "moved")
    images = list_images(place / "moved", range(10))
    index, fresh = update(place, images)
    assert fresh == 0
    assert open_index(place / "out").root == place / "moved"
    assert_equals_new_build(place, index, images)


def test_a_wrong_folder_does_not_empty_the_index(place: Path) -> None:
    before = folder_bytes(place / "out")
    with pytest.raises(InputError, match=r"none of the 10 images .* are the images below"):
        update(place, list_images(place / "nowhere", range(10)))
    after = folder_bytes(place / "out")
    assert after == before


def test_another_encoder_is_refused(place: Path) -> None:
    images = list_images(place / "images", range(10))
    with pytest.raises(IndexMismatch, match="pixels-0, got pixels-1"):
        update_index(place / "out", images, PixelEncoder(1))
    with pytest.raises(IndexDamaged, match="is not an index"):
        update_index(place / "images", images, PixelEncoder())
    assert not (place / "images" / ".lock").exists()


def test_compacting_frees_space_and_changes_no_hit(place: Path) -> None:
    images = list_images(place / "images", [0, 2, 4, 9])
    index, _ = update(place, images)
    before_compacting = sum(path.stat().st_size for path in (place / "out").rglob("*.npy"))
    manifest = compact_index(place / "out", shard_size=4)
    compacted = sum(path.stat().st_size for path in (place / "out").rglob("*.npy"))
    assert [shard.images for shard in manifest.shards] == [4]
    # 4 images of 16 regions of 8 float16, and a header.
    assert compacted == 4 * 16 * 8 * 2 + 128 < before_compacting
    after = open_index(place / "out", images=images)
    np.testing.assert_array_equal(after.scores(QUERIES), index.scores(QUERIES))
    assert_equals_new_build(place, after, images)
    before = folder_bytes(place / "out")
    assert compact_index(place / "out", shard_size=4) == manifest
    assert folder_bytes(place / "out") == before


def test_compacting_keeps_int8_and_shards_that_are_full(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", 9)
    out = tmp_path / "out"
    build_index(images, PixelEncoder(), out, clusters="none", quantize="int8", shard_size=3)
    kept = images.subset([0, 1, 2, 4, 8])
    scores = update_index(out, kept, PixelEncoder()).scores(QUERIES)
    untouched = (out / "shards" / "00000.vectors.npy").stat().st_ino
    manifest = compact_index(out, shard_size=3)
    assert [(shard.number, shard.images) for shard in manifest.shards] == [(0, 3), (3, 2)]
    assert (out / "shards" / "00000.vectors.npy").stat().st_ino == untouched
    np.testing.assert_array_equal(open_index(out).scores(QUERIES), scores)
    assert verify_index(out) == ()


def test_compacting_refuses_a_damaged_index(place: Path) -> None:
    update(place, list_images(place / "images", [0, 2, 4, 9]))
    path = place / "out" / "shards" / "00000.vectors.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(IndexDamaged, match="its content has changed"):
        compact_index(place / "out", shard_size=4)


def test_opening_a_finished_index_says_if_files_have_changed(
    place: Path, caplog: pytest.LogCaptureFixture
) -> None:
    images = list_images(place / "images", range(10))

    def messages() -> list[str]:
        caplog.clear()
        build_index(images, PixelEncoder(), place / "out", clusters="none")
        return caplog.messages

    (place / "images" / "1.jpg").touch()
    (place / "images" / "2.jpg").unlink()  # as where images are on another machine
    assert messages() == []
    (place / "images" / "3.jpg").write_bytes(b"another")
    (message,) = messages()
    assert "1 of the 10 image files that were looked at have changed" in message
    assert "3.jpg" in message
    update(place, images)
    assert messages() == []

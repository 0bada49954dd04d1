"""An index at an address: fetched once, checked, kept within bounds."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import fsspec
import msgspec
import pytest
from pixel_images import PixelEncoder, folder_bytes, list_images, write_image, write_images

from hardmine.errors import HardmineError, IndexDamaged, InputError
from hardmine.index import build_index, open_index, read_manifest, update_index
from hardmine.index.remote import local_index
from hardmine.index.storage.files import FileRecord
from hardmine.index.storage.manifest import Manifest, write_manifest

ADDRESS = "memory://indexes/a.hmx"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of six images in three shards."""
    folder = tmp_path_factory.mktemp("built")
    build_index(write_images(folder, 6), PixelEncoder(), folder / "a.hmx", shard_size=2)
    return folder / "a.hmx"


@pytest.fixture
def files(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The index in fsspec's memory, and an empty cache."""
    monkeypatch.setenv("HARDMINE_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    memory.put(str(built), "/indexes/a.hmx", recursive=True)
    yield memory
    memory.rm("/", recursive=True)


def upload(files: Any, folder: Path) -> None:
    files.rm("/indexes/a.hmx", recursive=True)
    files.put(str(folder), "/indexes/a.hmx", recursive=True)


def test_a_copy_is_byte_for_byte_and_fetched_once(files: Any, built: Path) -> None:
    copy = local_index(ADDRESS)
    assert folder_bytes(copy) == folder_bytes(built)
    files.rm("/indexes/a.hmx/shards", recursive=True)  # another fetch would fail
    assert local_index(Path(ADDRESS)) == copy  # as the command line gives it
    assert len(open_index(ADDRESS, encoder=PixelEncoder())) == 6
    assert local_index(built) == built


def test_a_changed_index_is_noticed_and_only_its_changed_files_are_fetched(
    files: Any, built: Path, tmp_path: Path
) -> None:
    old = local_index(ADDRESS)
    before = folder_bytes(old)
    fsspec.filesystem("file").put(str(built), str(tmp_path / "b.hmx"), recursive=True)
    write_image(built.parent / "6.jpg", 6)
    update_index(tmp_path / "b.hmx", list_images(built.parent, range(1, 7)), PixelEncoder())
    upload(files, tmp_path / "b.hmx")
    new = local_index(ADDRESS)
    assert folder_bytes(new) == folder_bytes(tmp_path / "b.hmx")
    assert folder_bytes(old) == before
    kept = "shards/00001.vectors.npy"
    assert (new / kept).samefile(old / kept)
    # Back again, and nobody has opened the others for an hour.
    hour_ago = time.time() - 3600
    for copy in (old, new):
        os.utime(copy, (hour_ago, hour_ago))
    upload(files, built)
    assert local_index(ADDRESS) == old
    write_manifest(tmp_path / "b.hmx", written_again(tmp_path / "b.hmx"), scratch=tmp_path)
    upload(files, tmp_path / "b.hmx")
    third = local_index(ADDRESS)
    assert [copy.exists() for copy in (old, new, third)] == [True, False, True]


def written_again(folder: Path) -> Manifest:
    """The manifest of an index, written by another version."""
    return msgspec.structs.replace(read_manifest(folder), hardmine="0.0.1")


@pytest.mark.parametrize("left", ["the beginning", "other bytes", "more than all"])
def test_a_broken_off_call_is_continued(files: Any, built: Path, left: str) -> None:
    content = files.cat_file("/indexes/a.hmx/shards/00001.vectors.npy")
    files.rm("/indexes/a.hmx/shards/00001.vectors.npy")
    with pytest.raises(IndexDamaged, match=r"00001\.vectors\.npy"):
        local_index(ADDRESS)
    (unfinished,) = Path(os.environ["HARDMINE_CACHE"]).glob("indexes/a.hmx-*/fetching-*")
    assert not (unfinished / "manifest.json").exists()
    assert list(unfinished.glob("*.part")) == []
    files.pipe("/indexes/a.hmx/shards/00001.vectors.npy", content)
    whole = next(r for r in files_of(built) if r.name == "shards/00001.vectors.npy")
    part = {"the beginning": content[:40], "other bytes": b"x" * 40, "more than all": content * 2}
    (unfinished / f"{whole.sha256}.part").write_bytes(part[left])
    assert folder_bytes(local_index(ADDRESS)) == folder_bytes(built)
    assert not unfinished.exists()


def files_of(folder: Path) -> tuple[FileRecord, ...]:
    return read_manifest(folder).files


@pytest.mark.parametrize("harm", ["cut", "altered", "missing", "manifest", "no index"])
def test_a_damaged_index_is_never_taken_for_whole(files: Any, harm: str) -> None:
    name = "/indexes/a.hmx/shards/00000.vectors.npy"
    content = files.cat_file(name)
    if harm == "missing":
        files.rm(name)
    elif harm == "manifest":
        manifest = files.cat_file("/indexes/a.hmx/manifest.json")
        files.pipe("/indexes/a.hmx/manifest.json", manifest.replace(b'"seed": 0', b'"seed": 1'))
    elif harm == "no index":
        files.rm("/indexes/a.hmx/manifest.json")
    else:
        files.pipe(name, content[:-1] if harm == "cut" else content[:-1] + b"?")
    with pytest.raises(IndexDamaged, match=r"memory://indexes/a\.hmx"):
        open_index(ADDRESS)
    assert not list(Path(os.environ["HARDMINE_CACHE"]).glob("indexes/*/*/manifest.json"))


def test_several_at_once_get_one_whole_copy(files: Any, built: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        copies = {future.result() for future in [pool.submit(local_index, ADDRESS)] * 4}
    assert len(copies) == 1
    assert folder_bytes(copies.pop()) == folder_bytes(built)


def test_the_cache_is_bounded(files: Any, built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = sum(record.bytes for record in files_of(built)) / 2**30
    monkeypatch.setenv("HARDMINE_CACHE_GIB", str(size * 2.5))
    for name in "bcd":
        files.put(str(built), f"/indexes/{name}.hmx", recursive=True)
    first, second = local_index(ADDRESS), local_index("memory://indexes/b.hmx")
    third = local_index("memory://indexes/c.hmx")
    assert first.exists()  # both were opened a moment ago, perhaps by a process that reads them now
    assert second.exists()
    hour_ago = time.time() - 3600
    for seconds, copy in enumerate((second, first, third)):
        os.utime(copy, (hour_ago + seconds, hour_ago + seconds))
    local_index("memory://indexes/d.hmx")
    assert [copy.exists() for copy in (first, second, third)] == [False, False, True]
    monkeypatch.setenv("HARDMINE_CACHE_GIB", str(size / 2))
    with pytest.raises(HardmineError, match=r"more than the .* GiB that the cache may hold"):
        local_index(ADDRESS)
    monkeypatch.setenv("HARDMINE_CACHE_GIB", "much")
    with pytest.raises(InputError, match="must be a number of GiB, got 'much'"):
        local_index(ADDRESS)

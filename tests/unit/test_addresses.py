"""Addresses as paths, and data sets whose files lie at addresses, in fsspec's memory."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_images import write_images

from hardmine.addresses import Address, as_path
from hardmine.datasets import images_from, load_images, open_image
from hardmine.errors import InputError, Unreachable
from hardmine.records import ImageSet


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> ImageSet:
    """Four images on this machine."""
    return write_images(tmp_path_factory.mktemp("here"), 4)


@pytest.fixture
def memory(here: ImageSet) -> Iterator[Any]:
    """The same images at ``memory://set/train``."""
    files = fsspec.filesystem("memory")
    files.put(str(here.root), "/set/train", recursive=True)
    yield files
    files.rm("/", recursive=True)


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("s3://bucket/a.jpg", "s3://bucket/a.jpg"),
        (Path("s3://bucket") / "a.jpg", "s3://bucket/a.jpg"),  # a path keeps one slash
        (as_path("s3://bucket/b/").parent / "a.jpg", "s3://bucket/a.jpg"),
        ("hf://datasets/me/set@main/a.jpg", "hf://datasets/me/set@main/a.jpg"),
        ("images/s3:/a.jpg", "images/s3:/a.jpg"),
        ("C:/a.jpg", "C:/a.jpg"),
    ],
)
def test_an_address_is_a_path(given: str | Path, text: str) -> None:
    path = as_path(given)
    assert str(path) == text
    assert isinstance(path, Address) == (not text.startswith(("images", "C:")))
    assert pickle.loads(pickle.dumps(path)) == path
    assert path.name == "a.jpg"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("https://host/a.jpg?token=abc", "https:// are not read; expected one of s3://"),
        ("s3://key:secret@bucket/a.jpg", "begins with s3:// holds a user or a password"),
    ],
)
def test_other_addresses_are_refused_and_not_repeated(given: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        open_image(given)
    assert "secret" not in str(caught.value)
    assert "token" not in str(caught.value)


def same_pictures(found: ImageSet, here: ImageSet) -> None:
    assert len(found) == len(here)
    for row in range(len(here)):
        np.testing.assert_array_equal(np.asarray(found.open(row)), np.asarray(here.open(row)))


def test_a_folder_a_list_and_paths(memory: Any, here: ImageSet, tmp_path: Path) -> None:
    same_pictures(load_images("memory://set/train"), here)
    addresses = [f"memory://set/train/{path}" for path in here.paths]
    (tmp_path / "list.txt").write_text("\n".join(addresses))
    listed = load_images("memory://set/train", annotations=tmp_path / "list.txt")
    assert listed.paths == here.paths
    same_pictures(listed, here)
    same_pictures(images_from(addresses), here)
    (tmp_path / "list.txt").write_text("memory://set/val/0.jpg")
    with pytest.raises(InputError, match=r"line 1: the address memory://set/val/0\.jpg is"):
        load_images("memory://set/train", annotations=tmp_path / "list.txt")
    (tmp_path / "list.txt").write_text("0.jpg\ns3://key:secret@bucket/0.jpg")
    with pytest.raises(InputError, match=r"line 2: an address .* holds a user or a password"):
        load_images(tmp_path / "list.txt", check_files=False)
    with pytest.raises(InputError, match="beside paths of this machine"):
        images_from([addresses[0], "a.jpg"])


def test_files_are_listed_at_any_depth(memory: Any, here: ImageSet) -> None:
    folder = as_path("memory://set")
    assert {path.name for path in folder.rglob("*.jpg")} == set(here.paths)
    assert list(folder.glob("*.jpg")) == []


def test_an_imagefolder(memory: Any, here: ImageSet) -> None:
    objects = {"bbox": [[1, 2, 8, 9]], "categories": ["car"]}
    lines = [json.dumps({"file_name": path, "objects": objects}) for path in here.paths]
    memory.pipe("/set/train/metadata.jsonl", "\n".join(lines).encode())
    found = load_images("memory://set", split="train")
    assert found.class_names == ("car",)
    assert found.instances is not None
    assert found.instances.boxes.tolist() == [[1, 2, 9, 11]] * 4
    same_pictures(found, here)


def test_tar_and_parquet_files(memory: Any, here: ImageSet) -> None:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        for path in here.paths:
            file.add(here.root / path, path)
    memory.pipe("/tars/0.tar", packed.getvalue())
    found = load_images("memory://tars")
    assert found.paths == tuple(f"0.tar/{path}" for path in here.paths)
    same_pictures(found, here)
    rows = [{"bytes": here.read(row), "path": path} for row, path in enumerate(here.paths)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), sink)
    memory.pipe("/tables/train-0.parquet", sink.getvalue())
    same_pictures(load_images("memory://tables"), here)


def test_labels_in_many_small_files_stay_here(memory: Any) -> None:
    memory.pipe({"/voc/Annotations/a.xml": b"<annotation/>", "/voc/JPEGImages/a.jpg": b""})
    with pytest.raises(InputError, match="voc is read from folders of this machine only"):
        load_images("memory://voc")


def test_a_reader_out_of_reach_breaks_no_image() -> None:
    def read(name: str) -> bytes:
        raise ConnectionResetError(f"no answer for {name}")

    images = images_from(["a.jpg"], reader=read)
    with pytest.raises(Unreachable, match=r"a\.jpg: cannot be reached: .*no answer"):
        images.open(0)

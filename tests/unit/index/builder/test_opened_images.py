"""An index of images that are not files: inside tar and parquet files, or behind a reader."""

from __future__ import annotations

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pixel_images import PixelEncoder, list_images, write_images

from hardmine.datasets import images_from, load_images, open_image
from hardmine.errors import InputError
from hardmine.image_files.decode import image_size
from hardmine.index import build_index, read_manifest, update_index, verify_index
from hardmine.index.builder.update import find_changes
from hardmine.index.storage.read import read_images
from hardmine.records import ImageSet

COUNT = 7
ENCODER = PixelEncoder()


class FolderReader:
    """Reads images by name from a folder that the set does not know."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, name: str) -> bytes:
        return (self.folder / f"{name}.jpg").read_bytes()


def pack(files: Path, kind: str, out: Path) -> ImageSet:
    """The same images, packed."""
    names = [f"{number}.jpg" for number in range(COUNT)]
    contents = [(files / name).read_bytes() for name in names]
    out.mkdir(exist_ok=True)
    if kind == "tar":
        with tarfile.open(out / "a.tar", "w") as archive:
            for name in names:
                archive.add(files / name, f"./deep/{name}")
        paths = [out / "a.tar" / "deep" / name for name in names]
    elif kind == "parquet":
        column = [{"bytes": content, "path": None} for content in contents]
        table = pa.table({"image": column, "label": list(range(COUNT))})
        pq.write_table(table, out / "a.parquet", row_group_size=3)
        paths = [out / "a.parquet" / str(row) for row in range(COUNT)]
    else:
        return images_from([str(n) for n in range(COUNT)], reader=FolderReader(files))
    return images_from(paths, ids=np.arange(COUNT))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    write_images(folder, COUNT, broken=[4])
    return folder


@pytest.mark.parametrize("kind", ["tar", "parquet", "reader"])
def test_packed_images_are_indexed_and_updated_like_files(
    files: Path, tmp_path: Path, kind: str
) -> None:
    images = pickle.loads(pickle.dumps(pack(files, kind, tmp_path / "packed")))
    expected = build_index(list_images(files, range(COUNT)), ENCODER, tmp_path / "expected")
    index = build_index(images, ENCODER, tmp_path / "index", workers=3, batch_size=2)
    queries = ENCODER.encode_texts(["a", "b"])
    np.testing.assert_array_equal(index.scores(queries), expected.scores(queries))
    assert index.ids.tolist() == [0, 1, 2, 3, 5, 6]
    np.testing.assert_array_equal(images.open(3), np.asarray(open_image(files / "3.jpg")))
    table = read_images(tmp_path / "index", read_manifest(tmp_path / "index"))
    assert "cannot be decoded" in table.facts[4].problem
    assert str(find_changes(table, images)) == "0 added, 0 changed, 0 removed"
    # Packed again with one other image: only that one has changed.
    other = tmp_path / "other"
    other.mkdir()
    for path in files.iterdir():
        source = files / "0.jpg" if path.name == "2.jpg" else path
        (other / path.name).write_bytes(source.read_bytes())
    images = pack(other, kind, tmp_path / "packed")
    assert str(find_changes(table, images)) == "0 added, 1 changed, 0 removed"
    scores = update_index(tmp_path / "index", images, ENCODER).scores(queries)
    np.testing.assert_array_equal(scores[:, 2], scores[:, 0])
    assert verify_index(tmp_path / "index") == ()


def test_a_reader_that_fails_is_a_problem_of_one_image(files: Path, tmp_path: Path) -> None:
    images = images_from(["1", "none", "2"], reader=FolderReader(files))
    index = build_index(images, ENCODER, tmp_path)
    assert index.ids.tolist() == [0, 2]
    problem = read_images(tmp_path, read_manifest(tmp_path)).facts[1].problem
    assert problem.startswith("cannot be read: FileNotFoundError")


def test_paths_into_archives(files: Path, tmp_path: Path) -> None:
    for kind in ("tar", "parquet"):
        pack(files, kind, tmp_path)
    assert image_size(tmp_path / "a.tar/deep/0.jpg") == (24, 32)
    assert image_size(tmp_path / "a.parquet/6") == (24, 32)
    pq.write_table(pa.table({"label": [1]}), tmp_path / "bare.parquet")
    (tmp_path / "packed.tar").write_bytes(b"\x1f\x8b" + bytes(600))
    for path, message in (
        ("a.tar/0.jpg", "the tar file has no such image"),
        ("a.parquet/7", "expected a row from 0 to 6"),
        ("a.parquet/x", "expected a row from 0 to 6"),
        ("bare.parquet/0", "expected one column of images .* found none among label"),
        ("packed.tar/0.jpg", "a compressed one must be unpacked"),
        ("none.tar/0.jpg", "no such image file"),
    ):
        with pytest.raises(InputError, match=message):
            open_image(tmp_path / path)


def test_a_folder_of_tar_files_is_an_image_set(files: Path, tmp_path: Path) -> None:
    for number, names in enumerate((["3.jpg", "1.jpg"], ["0.jpg"])):
        with tarfile.open(tmp_path / f"train-{number}.tar", "w") as archive:
            for name in names:
                archive.add(files / name, name)
    expected = ("train-0.tar/3.jpg", "train-0.tar/1.jpg", "train-1.tar/0.jpg")
    assert load_images(tmp_path).paths == load_images(tmp_path, split="train").paths == expected
    assert load_images(tmp_path / "train-1.tar").paths == ("train-1.tar/0.jpg",)
    np.testing.assert_array_equal(
        load_images(tmp_path).open(1), np.asarray(open_image(files / "1.jpg"))
    )
    label = tmp_path / "3.json"
    label.write_text("{}")
    with tarfile.open(tmp_path / "train-0.tar", "a") as archive:
        archive.add(label, "3.json")
    assert "1 other members, such as train-0.tar/3.json" in load_images(tmp_path).notes[0]
    with tarfile.open(tmp_path / "train-0.tar", "a") as archive:
        archive.add(files / "0.jpg", "../0.jpg")
    with pytest.raises(InputError, match="leaves the image root"):
        load_images(tmp_path)
    with pytest.raises(InputError, match="no image in 0 tar files"):
        load_images(tmp_path, "tar", split="val")


def test_a_link_in_a_tar_file_is_not_followed(files: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        link = tarfile.TarInfo("0.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, str(files / "0.jpg")
        archive.addfile(link)
    with pytest.raises(InputError, match="no such image"):
        open_image(tmp_path / "a.tar/0.jpg")

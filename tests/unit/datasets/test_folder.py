"""The reader of folders and lists of images without labels."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError

ImageWriter = Callable[..., Path]


def test_all_images_below_a_folder_are_read_in_order(
    image_file: ImageWriter, tmp_path: Path
) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/.hidden.png", ".cache/x.png", "c.webp"):
        image_file(name)
    (tmp_path / "notes.md").write_text("no image")
    (tmp_path / "a/again").symlink_to(tmp_path)
    images = load_images(tmp_path)
    assert images.paths == ("a/z.PNG", "b.jpg", "c.webp")
    assert images.ids.tolist() == list(images.paths)
    assert not images.labelled
    assert images.class_counts.shape == (3, 0)


def test_linked_folders_are_followed(image_file: ImageWriter, tmp_path: Path) -> None:
    image_file("disk/a.jpg")
    (tmp_path / "set").mkdir()
    (tmp_path / "set/more").symlink_to(tmp_path / "disk")
    assert load_images(tmp_path / "set").paths == ("more/a.jpg",)


def test_a_folder_that_may_not_be_listed_is_an_error(
    image_file: ImageWriter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image_file("a.jpg")
    image_file("b/c.jpg")
    scandir = os.scandir

    def refusing(path: str) -> Any:  # a mode would not keep root out
        if Path(path).name == "b":
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    with pytest.raises(InputError, match=r"b: cannot be listed \(Permission denied\); allow it"):
        load_images(tmp_path)


def test_a_list_keeps_its_order(image_file: ImageWriter, tmp_path: Path) -> None:
    image_file("a.jpg")
    image_file("b/c.jpg")
    file = tmp_path / "list.txt"
    file.write_text(f"\ufeff# chosen\nb/c.jpg\r\n\n{tmp_path / 'a.jpg'}\n", encoding="utf-8")
    images = load_images(file)
    assert images.root == tmp_path
    assert images.paths == ("b/c.jpg", "a.jpg")


def test_a_list_outside_the_image_folder(image_file: ImageWriter, tmp_path: Path) -> None:
    image_file("images/a.jpg")
    (tmp_path / "list.txt").write_text("a.jpg\n")
    images = load_images(tmp_path / "images", annotations=tmp_path / "list.txt")
    assert images.path(0) == tmp_path / "images/a.jpg"


def test_an_empty_list_gives_an_empty_set(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("\n")
    assert len(load_images(tmp_path / "list.txt")) == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a.jpg\n../x.jpg", r"list\.txt: line 2: the path '\.\./x\.jpg' leaves the image root"),
        ("/etc/x.jpg", r"list\.txt: line 1: the path '/etc/x\.jpg' leaves"),
        ("a.jpg\nb.jpg\n./a.jpg", r"list\.txt: line 3: 'a\.jpg' is already on line 1"),
        ("a.jpg\nnone.jpg", r"list\.txt: images are missing below .*: none\.jpg \(line 2\)"),
        ("none/a.jpg\nnone/b.jpg", r"missing below .*: none/a\.jpg \(line 1\)"),
        ("a\0.jpg", r"list\.txt: line 1: the path 'a\\x00\.jpg' leaves"),
    ],
)
def test_errors_name_the_file_and_the_line(
    image_file: ImageWriter, tmp_path: Path, text: str, message: str
) -> None:
    image_file("a.jpg")
    image_file("b.jpg")
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        load_images(tmp_path / "list.txt")


def test_a_binary_list_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes(b"\x89PNG\xff")
    with pytest.raises(InputError, match=r"list\.txt: byte 0 is not UTF-8"):
        load_images(tmp_path / "list.txt")


def test_a_folder_has_no_splits(image_file: ImageWriter, tmp_path: Path) -> None:
    image_file("a.jpg")
    with pytest.raises(InputError, match="has no splits, got split='train'"):
        load_images(tmp_path, split="train")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no image file in this folder"):
        load_images(tmp_path / "empty", "folder")

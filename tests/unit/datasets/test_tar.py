"""Tar files as WebDataset has them: the labels of an image lie beside it, in a json file."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError

CATEGORIES = [{"id": 3, "name": "dog"}, {"id": 7, "name": "cat"}]
# Of three images of 40 × 30 pixels; the second has no objects.
OBJECTS = [
    [{"bbox": [1, 2, 20, 10], "category_id": 7}, {"bbox": [0, 0, 39, 29], "category_id": 3}],
    [],
    [{"bbox": [5, 5, 30, 20], "category_id": 3, "iscrowd": 1}],
]
NAMES = {each["id"]: each["name"] for each in CATEGORIES}


def write(folder: Path, contents: list[Any]) -> Path:
    """A tar file of an image for each content, with the content in a json file beside it."""
    buffer = io.BytesIO()
    PIL.Image.new("RGB", (40, 30)).save(buffer, "PNG")
    with tarfile.open(folder / "train-000000.tar", "w") as archive:
        for row, content in enumerate(contents):
            members = {f"{row:04}.left.png": buffer.getvalue()}
            if content is not None:
                members[f"{row:04}.json"] = json.dumps(content).encode()
            for name, data in members.items():
                entry = tarfile.TarInfo(f"./day.1/{name}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return folder


@pytest.fixture
def coco(tmp_path: Path) -> Any:
    """The same labels in one file of COCO's format, as read from it."""
    annotations = [
        {**each, "image_id": 10 + row, "id": 10 * row + place, "area": 1.0}
        for row, found in enumerate(OBJECTS)
        for place, each in enumerate(found)
    ]
    images = [
        {"id": 10 + row, "file_name": f"{row}.png", "height": 30, "width": 40} for row in range(3)
    ]
    file = tmp_path / "labels.json"
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    file.write_text(json.dumps(content))
    return load_images(tmp_path, annotations=file, check_files=False)


def labels_of(images: Any) -> list[tuple[Any, ...]]:
    """Image, class, box and whether it is a group, of each object."""
    found = images.instances
    columns = (images.ids[found.image_rows], found.class_rows, found.boxes, found.crowd)
    return [
        (image, images.class_names[row], *box.tolist(), bool(group))
        for image, row, box, group in zip(*columns, strict=True)
    ]


def annotations_of(row: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """COCO's annotations, which RF-DETR packs so; an index beside them has the names."""
    return {"image_id": 10 + row, "file_name": f"{row}.png", "annotations": found}


def objects_of(row: int, found: list[dict[str, Any]]) -> dict[str, Any]:
    """Hugging Face's column of objects, with names."""
    names = [NAMES[each["category_id"]] for each in found]
    groups = [each.get("iscrowd", 0) for each in found]
    objects = {"bbox": [each["bbox"] for each in found], "category": names, "iscrowd": groups}
    return {"image_id": 10 + row, "objects": objects, "width": 40, "height": 30}


@pytest.mark.parametrize("form", [annotations_of, objects_of])
def test_labels_are_those_of_the_same_coco_file(tmp_path, coco, form) -> None:
    (tmp_path / "shards").mkdir()
    folder = write(tmp_path / "shards", [form(row, each) for row, each in enumerate(OBJECTS)])
    (folder / "train-index.json").write_text(json.dumps({"version": 1, "categories": CATEGORIES}))
    images = load_images(folder, split="train")
    assert sorted(labels_of(images)) == sorted(labels_of(coco))
    assert images.ids.tolist() == coco.ids.tolist()
    assert images.paths[0] == "train-000000.tar/day.1/0000.left.png"
    assert images.open(0).size == (40, 30)


def test_an_image_without_labels_is_counted(tmp_path) -> None:
    boxes = [{"box": [1, 2, 20, 10], "label": "dog"}]
    caption = {"caption": "a dog", "similarity": float("nan"), "objects": ["dog"]}
    images = load_images(write(tmp_path, [boxes, None, caption]))
    assert np.bincount(images.instances.image_rows, minlength=3).tolist() == [1, 0, 0]
    [note] = images.notes
    assert note.startswith("2 of 3 images, such as train-000000.tar/day.1/0001.left.png, have no")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"annotations": OBJECTS[0]},
            r"are numbers \(\[3, 7\] .* pass format=\"tar\" and annotation",
        ),
        ({"boxes": [[1, 2, 20]], "labels": ["dog"]}, "image 0: expected boxes of four numbers"),
        ({"boxes": [[1, 2, 20, 10]], "labels": []}, "and labels for each object, got {'boxes'"),
        ({"boxes": [[1, 2, 20, 10]]}, "no categories in the column 'json': it holds boxes"),
        # Read as width and height, the corner leaves the image.
        ({"boxes": [[30, 20, 39, 29]], "labels": ["dog"]}, "in pixels, as xyxy"),
    ],
)
def test_labels_that_cannot_be_read_are_refused(tmp_path, content, message) -> None:
    with pytest.raises(InputError, match=message):
        load_images(write(tmp_path, [content]))


@pytest.mark.parametrize("text", [b"{", b"\xff", b"[" * 100_000])
def test_a_json_file_that_cannot_be_parsed_is_named(tmp_path, text) -> None:
    with tarfile.open(write(tmp_path, [None]) / "train-000000.tar", "a") as archive:
        entry = tarfile.TarInfo("day.1/0000.json")
        entry.size = len(text)
        archive.addfile(entry, io.BytesIO(text))
    with pytest.raises(InputError, match=r"train-000000.tar/day.1/0000.json: no valid JSON"):
        load_images(tmp_path)

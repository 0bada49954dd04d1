"""Layouts that exporters and hubs write: Roboflow, Hugging Face's folders and files, Datumaro."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError
from hardmine.records import ImageSet

ImageWriter = Callable[..., Path]
NAMES = ["cat", "traffic light"]
XYWH = [[1.0, 2.0, 10.0, 20.0], [5.0, 6.0, 3.0, 3.0]]
XYXY = [[1, 2, 11, 22], [5, 6, 8, 9]]


def assert_two_boxes(images: ImageSet, paths: tuple[str, ...]) -> None:
    """Two images of 60 × 40; both boxes in the first, a traffic light and a cat."""
    assert images.paths == paths
    assert images.instances is not None
    assert images.instances.boxes.tolist() == XYXY
    assert images.instances.image_rows.tolist() == [0, 0]
    assert [images.class_names[row] for row in images.instances.class_rows] == NAMES[::-1]
    assert [images.open(row).size for row in range(2)] == [(60, 40)] * 2


def test_roboflow_coco(tmp_path: Path, image_file: ImageWriter) -> None:
    for part in ("train", "valid"):
        content = {
            "info": {"description": ""},
            "images": [
                {"id": row, "file_name": f"{part}{row}.png", "width": 60, "height": 40}
                for row in range(2)
            ],
            "categories": [{"id": row, "name": name} for row, name in enumerate(NAMES)],
            "annotations": [
                {"id": row, "image_id": 0, "category_id": 1 - row, "bbox": XYWH[row], "iscrowd": 0}
                for row in range(2)
            ],
        }
        for row in range(2):
            image_file(f"{part}/{part}{row}.png")
        (tmp_path / part / "_annotations.coco.json").write_text(json.dumps(content))
    for source, split in ((tmp_path, "train"), (tmp_path / "train", None)):
        assert_two_boxes(load_images(source, split=split), ("train0.png", "train1.png"))
    with pytest.raises(InputError, match=r"found train/_annotations.*, valid/.*; pass split="):
        load_images(tmp_path)


def write_metadata(folder: Path, *rows: Any) -> None:
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))


def test_a_huggingface_image_folder(tmp_path: Path, image_file: ImageWriter) -> None:
    for name in ("a.png", "deep/b.png"):
        image_file(f"train/{name}")
    folder = tmp_path / "train"
    objects = {"bbox": XYWH, "categories": ["traffic light", "cat"]}
    rows = [{"file_name": "a.png", "objects": objects}, {"file_name": "deep/b.png"}]
    write_metadata(folder, *rows)
    for source, split in ((tmp_path, "train"), (tmp_path, None), (folder, None)):
        assert_two_boxes(load_images(source, split=split), ("a.png", "deep/b.png"))
    rows[0]["objects"] = {"bbox": XYWH, "categories": [1, 0]}
    write_metadata(folder, *rows)
    with pytest.raises(InputError, match=r"are numbers .* or declare them in README"):
        load_images(folder)
    card = {"features": [{"objects": [{"category": {"class_label": {"names": {"0": "cat"}}}}]}]}
    card["features"][0]["objects"][0]["category"]["class_label"]["names"]["1"] = NAMES[1]
    (tmp_path / "README.md").write_text(f"---\n{json.dumps({'dataset_info': card})}\n---\n# Set\n")
    assert_two_boxes(load_images(tmp_path), ("a.png", "deep/b.png"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"file_name": "a.png", "text": "a cat"}, "got file_name, text; for images without"),
        ({"file_name": "../a.png", "objects": {}}, "leaves the image root"),
        ({"file_name": "b.png", "objects": {}}, r"images are missing .* b\.png \(line 1\)"),
        ({"file_name": "a.png", "objects": {"box3d": [1]}}, "no boxes in the column 'objects': it"),
        (
            {"file_name": "a.png", "objects": {"bbox": [[40, 20, 55, 39]], "label": ["cat"]}},
            "read as xywh, 1 boxes of a sample leave their images; read as xyxy, none does",
        ),
    ],
)
def test_metadata_that_cannot_be_read(
    tmp_path: Path, image_file: ImageWriter, row: Any, message: str
) -> None:
    image_file("a.png")
    write_metadata(tmp_path, row)
    with pytest.raises(InputError, match=message):
        load_images(tmp_path)


def hub_table(image_file: ImageWriter, **columns: Any) -> pa.Table:
    content = image_file("plain.png").read_bytes()
    objects = [
        {"bbox": XYWH, "category": [1, 0]},
        {"bbox": [], "category": []},
    ]
    images = [{"bytes": content, "path": f"{row}.png"} for row in range(2)]
    given = {"image": images, "image_id": [7, 8], "objects": objects, **columns}
    return pa.table({name: values for name, values in given.items() if values is not None})


def test_parquet_files_of_a_hub(tmp_path: Path, image_file: ImageWriter) -> None:
    """The schema's metadata is what ``datasets`` 2 and 5 write."""
    folder = tmp_path / "set"
    (folder / "data").mkdir(parents=True)
    label = {"names": NAMES, "_type": "ClassLabel"}
    for objects in (
        {"feature": {"bbox": {}, "category": label}, "_type": "Sequence"},
        {"bbox": {}, "category": {"feature": label, "_type": "List"}},
    ):
        about = json.dumps({"info": {"features": {"image": {}, "objects": objects}}})
        table = hub_table(image_file).replace_schema_metadata({"huggingface": about})
        file = folder / "data" / "train-00000-of-00001.parquet"
        pq.write_table(table, file)
        images = load_images(folder, split="train")
        assert_two_boxes(images, tuple(f"data/{file.name}/{row}" for row in range(2)))
        assert images.ids.tolist() == [7, 8]
    pq.write_table(hub_table(image_file), file)
    with pytest.raises(InputError, match="categories in the column 'objects' are numbers"):
        load_images(folder)
    pq.write_table(hub_table(image_file, objects=None, faces=[[1], [2]]), file)
    with pytest.raises(InputError, match="no column 'objects'; found image, image_id, faces"):
        load_images(folder)
    pq.write_table(hub_table(image_file, objects=None), folder / "data" / "test-0.parquet")
    assert not load_images(folder, split="test").labelled
    with pytest.raises(InputError, match="files of one split, found test, train; pass split="):
        load_images(folder)


def test_datumaro(
    tmp_path: Path, image_file: ImageWriter, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.png", "b.png"):
        image_file(f"images/train/{name}")
    polygon = {"type": "polygon", "label_id": 0, "points": [5, 6, 8, 7, 6, 9]}
    content = {
        "dm_format_version": "1.0",
        "media_type": 2,
        "infos": {},
        "categories": {"label": {"labels": [{"name": name, "parent": ""} for name in NAMES]}},
        "items": [
            {
                "id": "a",
                "annotations": [
                    {"id": 0, "type": "bbox", "label_id": 1, "group": 0, "bbox": XYWH[0]},
                    polygon,
                    {"id": 0, "type": "caption", "caption": "a cat"},
                ],
                "image": {"path": "a.png", "size": [40, 60]},
            },
            {"id": "b", "annotations": [], "image": {"path": "b.png"}},
        ],
    }
    file = tmp_path / "annotations" / "train.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    for source in (tmp_path, file):
        images = load_images(source)
        assert_two_boxes(images, ("a.png", "b.png"))
        assert (images.ids.tolist(), images.sizes.tolist()) == (["a", "b"], [[40, 60], [0, 0]])
        assert images.notes == ("left out 1 annotations of the type caption",)
    assert sum(images.notes[0] in line for line in caplog.messages) == 2
    with pytest.raises(InputError, match="expected one Datumaro subset, found train; pass split="):
        load_images(tmp_path, split="val")
    polygon["label_id"] = 5
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"a\.png has the category 5, which is not among the 2"):
        load_images(tmp_path)

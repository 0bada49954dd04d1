"""The COCO reader against pycocotools, and its error messages."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardmine.datasets import json_rows, load_images
from hardmine.datasets.coco_json import read_tables
from hardmine.errors import InputError

Writer = Callable[..., Path]


def annotation(number: int, **fields: Any) -> dict[str, Any]:
    return {"id": number, "segmentation": [[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]], **fields}


def test_values_of_a_small_file(coco: Writer, tmp_path: Path) -> None:
    images = load_images(coco())
    assert images.root == tmp_path / "train2017"
    assert images.ids.tolist() == [10, 20]
    assert images.paths == ("1.png", "2.png")
    assert images.sizes.tolist() == [[40, 60], [40, 60]]
    assert images.class_names == ("traffic light", "dog")
    assert images.class_ids.tolist() == [3, 7]
    instances = images.instances
    assert instances is not None
    assert instances.image_rows.tolist() == [0, 1, 1]
    assert instances.class_rows.tolist() == [0, 1, 0]
    assert instances.ids.tolist() == [2, 1, 3]
    assert instances.crowd.tolist() == [True, False, False]
    np.testing.assert_array_equal(
        instances.boxes, [[0, 0, 60, 40], [1, 2, 11, 22], [5.5, 6.25, 7, 8.25]]
    )
    np.testing.assert_array_equal(instances.areas, [2400, 150.5, 3])
    assert images.class_counts.toarray().tolist() == [[0, 0], [1, 1]]
    assert images.notes == ()
    assert not images.federated


def test_all_forms_of_source_give_the_same_paths(coco: Writer, tmp_path: Path) -> None:
    file = coco()
    folder = tmp_path / "train2017"
    for images in (
        load_images(tmp_path),
        load_images(tmp_path, "coco", split="train"),
        load_images(tmp_path, annotations=file),
        load_images(folder, annotations=file),
        load_images(str(file)),
    ):
        assert [images.path(row) for row in range(2)] == [folder / "1.png", folder / "2.png"]


def test_photos_load_as_with_pycocotools(photos: Path) -> None:
    tools = pytest.importorskip("pycocotools.coco")
    with contextlib.redirect_stdout(io.StringIO()):
        peer = tools.COCO(str(photos / "instances.json"))
    images = load_images(photos / "images", annotations=photos / "instances.json")
    assert images.ids.tolist() == peer.getImgIds()
    assert images.class_ids.tolist() == peer.getCatIds()
    assert list(images.class_names) == [each["name"] for each in peer.loadCats(peer.getCatIds())]
    instances = images.instances
    assert instances is not None
    assert len(instances) == len(peer.anns) == 6682
    for row, image_id in enumerate(images.ids.tolist()):
        record = peer.imgs[image_id]
        assert images.sizes[row].tolist() == [record["height"], record["width"]]
        assert images.paths[row] == record["file_name"]
        expected = peer.loadAnns(peer.getAnnIds(imgIds=[image_id]))
        own = instances.take(instances.image_rows == row)
        assert own.ids.tolist() == [each["id"] for each in expected]
        assert images.class_ids[own.class_rows].tolist() == [
            each["category_id"] for each in expected
        ]
        xywh = np.array([each["bbox"] for each in expected])
        xyxy = np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)
        np.testing.assert_allclose(own.boxes, xyxy, atol=1e-4)
        np.testing.assert_allclose(own.areas, [each["area"] for each in expected], rtol=1e-6)


def test_a_block_smaller_than_a_record_gives_the_same_tables(
    coco: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = coco()
    whole = read_tables(file)
    small = partial(json_rows.read_records, block=50)
    monkeypatch.setattr("hardmine.datasets.coco_json.read_records", small)
    sliced = read_tables(file)
    assert sliced.categories == whole.categories
    assert sliced.file_names == whole.file_names
    for name in whole.boxes.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(sliced.boxes, name), getattr(whole.boxes, name))


def test_text_ids_and_annotations_without_ids(coco: Writer) -> None:
    pictures = [{"id": "a", "file_name": "1.png"}, {"id": "b", "file_name": "2.png"}]
    labels = [
        {"image_id": "b", "category_id": 3, "bbox": [1, 1, 2, 2]},
        {"image_id": "a", "category_id": 7, "bbox": [1, 1, 3, 3]},
    ]
    images = load_images(coco(images=pictures, annotations=labels))
    assert images.ids.tolist() == ["a", "b"]
    assert images.sizes.tolist() == [[0, 0], [0, 0]]
    assert images.instances is not None
    assert images.instances.ids.tolist() == [1, 0]
    assert images.rows_of(["b", "c"]).tolist() == [1, -1]


def test_no_annotations_at_all(coco: Writer) -> None:
    images = load_images(coco(annotations=[]))
    assert images.labelled
    assert len(images.instances or ()) == 0
    assert images.class_counts.shape == (2, 2)


def test_faulty_boxes_are_clipped_or_left_out(
    coco: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    boxes = [
        [1, 1, 5, 5],
        [50, 30, 10.4, 10],  # exceeds by a rounding error
        [50, 30, 30, 30],  # exceeds the image
        [5, 5, 0, 3],  # no width
        [70, 5, 10, 10],  # outside the image
        [float("nan"), 5, 10, 10],
        None,
        *([[2, 2, 3, 3]] * 4),
    ]
    labels = [
        annotation(row, image_id=10, category_id=3, bbox=box) for row, box in enumerate(boxes)
    ]
    images = load_images(coco(annotations=labels))
    assert images.instances is not None
    assert images.instances.ids.tolist() == [0, 1, 2, 7, 8, 9, 10]
    np.testing.assert_allclose(images.instances.boxes[1:3], [[50, 30, 60, 40]] * 2, rtol=1e-6)
    left_out, clipped = images.notes
    assert left_out.startswith("left out 4 of 11 boxes")
    assert "annotations[3] (id 3, image 10)" in left_out
    assert clipped.startswith("clipped 1 of 11 boxes")
    assert "annotations[2] (id 2, image 10)" in clipped
    assert [record.levelname for record in caplog.records] == ["WARNING"] * 2


def test_annotations_of_unlisted_images_are_left_out(
    coco: Writer, caplog: pytest.LogCaptureFixture
) -> None:
    labels = [
        annotation(row, image_id=image, category_id=3, bbox=[1, 1, 2, 2])
        for row, image in enumerate([10, 99, 20])
    ]
    images = load_images(coco(annotations=labels))
    assert images.instances is not None
    assert images.instances.ids.tolist() == [0, 2]
    assert images.notes == (
        "left out 1 annotations of images that are not listed: "
        "first annotations[1] (id 1, image 99)",
    )
    assert sum(images.notes[0] in line for line in caplog.messages) == 1


def one(**fields: Any) -> dict[str, Any]:
    full = {"image_id": 10, "category_id": 3, "bbox": [1, 1, 2, 2], **fields}
    return {"annotations": [annotation(5, **full)]}


def picture(**fields: Any) -> dict[str, Any]:
    return {"images": [{"id": 10, "file_name": "1.png", **fields}], "annotations": []}


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (one(category_id=4), r"annotations\[0\] \(id 5, image 10\) has the category 4, which is"),
        (one(image_id=11), r"1 of 1 annotations have an image_id that is not among 'images'.*id 5"),
        (one(image_id="10"), r"\(id 10\) and .*\(id 5, image 10\) have image ids of two types"),
        (one(image_id=1 << 70), r"annotations\[0\] to \[0\] does not fit into 64 bits"),
        (one(bbox=[1, 2, 3]), r"annotations\[0\] \(id 5\): Expected `array` of length 4"),
        (one(bbox=[1, 2, 3, "4"]), r"\(id 5\): Expected `float`, got `str` - at `\$.bbox\[3\]`"),
        (
            {"annotations": one()["annotations"] * 2},
            r"annotations\[0\] and annotations\[1\] have the same id 5",
        ),
        (
            {"images": [{"id": 1, "file_name": "1.png"}] * 2, "annotations": []},
            r"images\[0\] and images\[1\] have the same id 1",
        ),
        (
            {"images": [{"id": 1, "file_name": "1.png"}, {"id": "b", "file_name": "2.png"}]},
            r"mix numbers and text; the first that is not a number is 'b' in images\[1\]",
        ),
        (picture(file_name="3.png"), r"no image found: images\[0\] \(id 10\) is '3\.png'"),
        (picture(file_name="../1.png"), r"images\[0\] \(id 10\): the path '\.\./1\.png' leaves"),
        (picture(file_name="/etc/x.png"), r"the path '/etc/x\.png' leaves the image root"),
        (picture(file_name="a\\..\\..\\x.png"), r"leaves the image root"),
        (picture(file_name="C:\\x.png"), r"leaves the image root"),
        (picture(file_name=None), r"images\[0\] \(id 10\) has neither a file_name nor a coco_url"),
        (picture(file_name=""), r"images\[0\] \(id 10\)"),
        (one(category_id=1 << 70), r"an id among annotations\[0\] to \[0\] does not fit into 64"),
        (
            picture(width=-1, height=5),
            r"images\[0\] \(id 10\): impossible image size, -1 wide and 5 high",
        ),
        (
            picture(width=1e300, height=5),
            r"\(id 10\): impossible image size, 1e\+300 wide and 5 high",
        ),
        (picture(neg_category_ids=[1 << 70]), r"an id among images\[0\] to \[0\] does not fit"),
        ({"categories": [{"id": 1 << 70, "name": "a"}]}, r"among categories\[0\] to \[0\]"),
    ],
)
def test_errors_name_the_file_and_the_entry(
    coco: Writer, members: dict[str, Any], message: str
) -> None:
    file = coco(**members)
    with pytest.raises(InputError, match=message) as error:
        load_images(file)
    assert str(file) in str(error.value)


def test_boxes_in_another_format_are_an_error(coco: Writer) -> None:
    corners = [annotation(n, image_id=10, category_id=3, bbox=[70, 50, 80, 60]) for n in range(3)]
    with pytest.raises(InputError, match=r"3 of 3 boxes are empty or lie outside.*\(id 0, image"):
        load_images(coco(annotations=corners))


def test_missing_images_are_an_error_unless_check_files_is_false(
    coco: Writer, tmp_path: Path
) -> None:
    file = coco()
    (tmp_path / "train2017/2.png").unlink()
    with pytest.raises(InputError, match=r"missing below .*2\.png \(images\[1\] \(id 20\)\)"):
        load_images(file)
    assert len(load_images(file, check_files=False)) == 2


def test_labels_load_without_images(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    file = tmp_path / "alone.json"
    file.write_text(json.dumps(content))
    assert load_images(file, check_files=False).paths == ("a.jpg",)


def test_each_searched_folder_is_named_once(tmp_path: Path) -> None:
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [], "categories": []}
    file = tmp_path / "annotations" / "instances_train2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match="no image found") as error:
        load_images(file.parent, annotations=file)
    folders = str(error.value).partition("searched in ")[2].partition(";")[0].split(", ")
    assert len(folders) == len(set(folders)) > 1


def test_missing_members_are_named(coco: Writer, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    file.write_text('{"images": []}')
    with pytest.raises(InputError, match="this one has no annotations, categories"):
        load_images(file)


def test_several_files_need_a_split(coco: Writer, tmp_path: Path) -> None:
    coco("annotations/instances_train2017.json")
    coco("annotations/instances_val2017.json")
    coco("annotations/captions_val2017.json")
    with pytest.raises(InputError, match=r"expected one COCO.*instances_train2017\.json, anno"):
        load_images(tmp_path)
    with pytest.raises(InputError, match="with 'test' in its path"):
        load_images(tmp_path, split="test")
    assert load_images(tmp_path, split="train").paths == ("1.png", "2.png")


def test_a_linked_image_folder_is_followed(coco: Writer, tmp_path: Path) -> None:
    file = coco()
    (tmp_path / "train2017").rename(tmp_path / "elsewhere")
    (tmp_path / "train2017").symlink_to(tmp_path / "elsewhere")
    assert load_images(file).root == tmp_path / "train2017"


@pytest.mark.parametrize(("source", "path"), [("train2017", "1.png"), (".", "train2017/1.png")])
def test_file_names_that_start_with_missing_folders(
    coco: Writer, tmp_path: Path, source: str, path: str
) -> None:
    pictures = [{"id": 10, "file_name": "images/v1/train2017/1.png"}]
    file = coco(images=pictures, annotations=[])
    assert load_images(tmp_path / source, annotations=file).paths == (path,)


@pytest.mark.parametrize("number", [1e300, -1e300, 1e39, 10**30, float("-inf")])
@pytest.mark.parametrize("place", range(4))
def test_numbers_out_of_range_only_drop_their_box(coco: Writer, number: float, place: int) -> None:
    odd: list[float] = [1, 1, 2, 2]
    odd[place] = number
    labels = [
        annotation(row, image_id=10, category_id=3, bbox=box, area=number)
        for row, box in enumerate([odd, [1, 1, 2, 2], [2, 2, 3, 3]])
    ]
    instances = load_images(coco(annotations=labels)).instances
    assert instances is not None
    assert instances.ids.tolist()[-2:] == [1, 2]
    assert np.isfinite(instances.boxes).all()
    assert np.isfinite(instances.areas).all()


@pytest.mark.parametrize("group", [1, 9])
def test_of_two_categories_with_one_name_the_one_with_annotations_is_kept(
    coco: Writer, group: int
) -> None:
    names = {group: "dog", 7: "dog", 3: "traffic light"}
    images = load_images(coco(categories=[{"id": n, "name": each} for n, each in names.items()]))
    assert images.class_names == ("traffic light", "dog")
    assert images.class_ids.tolist() == [3, 7]
    assert images.class_counts.toarray().tolist() == [[0, 0], [1, 1]]
    names = {3: "dog", 7: "dog"}
    with pytest.raises(InputError, match="categories 3 and 7 are both called 'dog'"):
        load_images(coco(categories=[{"id": n, "name": each} for n, each in names.items()]))


def test_two_images_are_not_read_from_one_file(coco: Writer, tmp_path: Path) -> None:
    names = ("left/1.png", "right/1.png")
    listed = [{"id": row, "file_name": name} for row, name in enumerate(names)]
    file = coco(images=listed, annotations=[])
    with pytest.raises(InputError, match=r"images\[1\] \(id 1\) is 'right/1.png', but below"):
        load_images(tmp_path / "train2017", annotations=file)
    twice = [{"id": row, "file_name": "left/1.png"} for row in range(2)]
    images = load_images(tmp_path / "train2017", annotations=coco(images=twice, annotations=[]))
    assert images.paths == ("1.png", "1.png")  # one image listed twice

"""Image sets made of Python objects, and of other libraries' data sets."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

import hardmine
from hardmine.datasets import (
    from_fiftyone,
    from_huggingface,
    from_supervision,
    from_torchvision,
    from_ultralytics,
    images_from,
    load_images,
)
from hardmine.errors import InputError
from hardmine.records import ImageSet

NAMES = ("cat", "traffic light")
BOXES = ([[1, 2, 11, 22], [0, 0, 60, 40]], [], [[5, 6, 8, 9]])
LABELS = ([1, 0], [], [1])
SIZE = (40, 60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three images of 60 × 40, in two folders, and their labels as COCO and VOC."""
    root = tmp_path_factory.mktemp("objects")
    for number, name in enumerate(("a/0.png", "a/1.png", "b/2.png")):
        (root / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (number, 10, 20)).save(root / name)
    return root


def paths_of(folder: Path) -> list[str]:
    return [str(folder / name) for name in ("a/0.png", "a/1.png", "b/2.png")]


def assert_the_same(images: ImageSet, names: tuple[str, ...] = NAMES) -> None:
    """Whatever made the set, it holds the same boxes."""
    assert images.class_names == names
    assert images.instances is not None
    assert images.instances.image_rows.tolist() == [0, 0, 2]
    assert images.instances.boxes.tolist() == [*BOXES[0], *BOXES[2]]
    found = [images.class_names[row] for row in images.instances.class_rows]
    assert found == ["traffic light", "cat", "traffic light"]
    assert [images.open(row).getpixel((3, 3)) for row in range(3)] == [
        (number, 10, 20) for number in range(3)
    ]


def test_lists_become_an_image_set(folder: Path) -> None:
    images = hardmine.images_from(paths_of(folder), BOXES, LABELS, NAMES)
    assert images.root == folder
    assert images.ids.tolist() == ["a/0.png", "a/1.png", "b/2.png"]
    assert_the_same(images)
    tensors = [torch.tensor(each, dtype=torch.float32).reshape(-1, 4) for each in BOXES]
    named = [[NAMES[row] for row in each] for each in LABELS]
    mapped = images_from(
        paths_of(folder),
        tensors,
        named,
        {1: NAMES[1], 0: NAMES[0]},
        [7, 9, 8],
        sizes=[SIZE] * 3,
        crowd=[[False, True], [], [False]],
    )
    assert_the_same(mapped)
    assert (mapped.ids.tolist(), mapped.sizes.tolist()) == ([7, 9, 8], [list(SIZE)] * 3)
    assert mapped.instances is not None
    assert mapped.instances.crowd.tolist() == [False, True, False]
    assert not images_from(paths_of(folder)).labelled


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no image": ({"paths": [], "boxes": [], "labels": []}, "paths is empty"),
    "an image twice": ({"paths": ["x", "y", "x"]}, r"paths\[0\] and paths\[2\] are both 'x'"),
    "boxes of fewer images": ({"boxes": BOXES[:2]}, r"expected 3, got 2"),
    "labels of fewer images": ({"labels": LABELS[:2]}, r"labels must .*expected 3, got 2"),
    "another number of labels": ({"labels": ([1], [], [1])}, "image 0 has 2 boxes and labels"),
    "an unknown number": ({"labels": ([1, 2], [], [1])}, r"labels\[0\] must be .*0 to 1, got"),
    "a fraction": ({"labels": ([1, 0.5], [], [1])}, r"labels\[0\] must be positions"),
    "an unknown name": (
        {"labels": (["trafic light", "cat"], [], ["cat"])},
        "'trafic light'.*did you mean 'traffic light'",
    ),
    "no names": ({"class_names": ()}, "boxes need class_names"),
    "a name twice": ({"class_names": ("a", "a")}, "class_names holds 'a' twice"),
    "one name": ({"class_names": "cat"}, "must be a list of texts"),
    "numbers with a gap": ({"class_names": {1: "a", 3: "b"}}, r"numbered 0 to 1, got \[1, 3\]"),
    "boxes alone": ({"labels": None}, "boxes, labels and class_names go together"),
    "three numbers a box": ({"boxes": ([[1, 2, 3]], [], [])}, r"boxes\[0\] must be \(n, 4\)"),
    "shares": ({"boxes": ([[0, 0, 1, 1], [0, 0, 0.5, 1]], [], [[0, 0, 1, 1]])}, "not shares"),
    "xywh": ({"boxes": ([[30, 20, 9, 9], [1, 1, 9, 9]], [], [[5, 5, 9, 9]])}, "1 of 3 boxes end"),
    "an id twice": ({"ids": [1, 1, 2]}, "the id 1 is given to several images"),
    "fractions as ids": ({"ids": [0.5, 1, 2]}, "ids must be 3 numbers or texts"),
    "sizes of fewer images": ({"sizes": [SIZE]}, r"sizes must be .* got shape \(1, 2\)"),
    "crowd of fewer boxes": ({"crowd": [[True], [], []]}, r"expected 3, got 1"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_does_not_fit_is_named(case: str) -> None:
    changes, message = BAD[case]
    given = {"paths": ["x", "y", "z"], "boxes": BOXES, "labels": LABELS, "class_names": NAMES}
    with pytest.raises(InputError, match=message):
        images_from(**{**given, **changes})


def coco_file(folder: Path) -> Path:
    boxes = [
        (row, box, label)
        for row in range(3)
        for box, label in zip(BOXES[row], LABELS[row], strict=True)
    ]
    content = {
        "images": [
            {"id": 10 - row, "file_name": name, "height": 40, "width": 60}
            for row, name in enumerate(("a/0.png", "a/1.png", "b/2.png"))
        ],
        "annotations": [
            {
                **{"id": number, "image_id": 10 - row, "category_id": 3 + label},
                "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                **{"area": 1, "iscrowd": 0},
            }
            for number, (row, box, label) in enumerate(boxes, 1)
        ],
        "categories": [{"id": 3, "name": NAMES[0]}, {"id": 4, "name": NAMES[1]}],
    }
    file = folder / "labels.json"
    file.write_text(json.dumps(content))
    return file


def test_torchvision_coco_in_its_own_order(folder: Path) -> None:
    file = coco_file(folder)
    dataset = torchvision.datasets.CocoDetection(folder, file)
    images = from_torchvision(dataset)
    assert images.ids.tolist() == dataset.ids == [8, 9, 10]
    assert_the_same(images.subset([2, 1, 0]))
    expected = load_images(folder, annotations=file)
    assert images.class_ids.tolist() == expected.class_ids.tolist()
    part = from_torchvision(torch.utils.data.Subset(dataset, [2, 0]))
    assert part.ids.tolist() == [10, 8]
    dataset.ids = [10]
    assert len(from_torchvision(dataset).instances) == 2  # type: ignore[arg-type]


def test_torchvision_voc(tmp_path: Path) -> None:
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for part in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / part).mkdir(parents=True)
    for stem in ("b", "a"):
        Image.new("RGB", (60, 40)).save(root / "JPEGImages" / f"{stem}.jpg")
        (root / "Annotations" / f"{stem}.xml").write_text(
            "<annotation><size><width>60</width><height>40</height></size><object>"
            f"<name>{'cat' if stem == 'a' else 'dog'}</name><bndbox><xmin>2</xmin><ymin>3</ymin>"
            "<xmax>11</xmax><ymax>22</ymax></bndbox></object></annotation>"
        )
    (root / "ImageSets/Main/train.txt").write_text("b\na\n")
    images = from_torchvision(torchvision.datasets.VOCDetection(tmp_path, "2012", "train"))
    assert images.ids.tolist() == ["b", "a"]
    assert images.instances is not None
    assert images.instances.boxes.tolist() == [[1, 2, 11, 22]] * 2
    shown = [images.class_names[row] for row in images.instances.class_rows]
    assert shown == ["dog", "cat"]
    assert images.open(1).size == (60, 40)


class Pairs:
    """A data set of (image, target) pairs with labels from 1, as torchvision's detectors want."""

    def __init__(self, folder: Path, make: Callable[[Image.Image], Any], key: str = "boxes"):
        self.paths, self.make, self.key = paths_of(folder), make, key

    def __len__(self) -> int:
        return 3

    def __getitem__(self, row: int) -> tuple[Any, Any]:
        with Image.open(self.paths[row]) as image:
            made = self.make(image.convert("RGB"))
        labels = torch.tensor(LABELS[row], dtype=torch.int64) + 1
        return made, {self.key: torch.tensor(BOXES[row]).reshape(-1, 4), "labels": labels}


def as_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1)


@pytest.mark.parametrize(
    "make", [lambda image: image, np.asarray, as_tensor, lambda image: as_tensor(image) / 255]
)
def test_pairs_of_image_and_target(folder: Path, make: Callable[[Image.Image], Any]) -> None:
    images = from_torchvision(Pairs(folder, make), {1: NAMES[0], 2: NAMES[1]})
    assert_the_same(images)
    assert images.sizes.tolist() == [list(SIZE)] * 3


def test_pairs_of_other_images_do_not_fit_an_index_of_these(folder: Path) -> None:
    names = {1: NAMES[0], 2: NAMES[1]}
    fingerprints = [
        from_torchvision(Pairs(folder, make), names).fingerprint
        for make in (np.asarray, as_tensor, lambda image: as_tensor(image).flip(0))
    ]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]


def test_pairs_that_cannot_be_read(folder: Path) -> None:
    for dataset, names, message in (
        (Pairs(folder, np.asarray), None, "labels of this data set are numbers"),
        (Pairs(folder, np.asarray), NAMES, r"has labels \[2\], for which class_names has no name"),
        (Pairs(folder, np.asarray, "bbox"), NAMES, "target 0 has no boxes; it holds bbox, labels"),
        (
            Pairs(folder, lambda image: as_tensor(image) / 99 - 1),
            NAMES,
            "without its normalisation",
        ),
        ([1], NAMES, "position 0 of the data set is not a pair"),
        (7, NAMES, "expected a data set with a length"),
    ):
        with pytest.raises(InputError, match=message):
            from_torchvision(dataset, names)


def test_supervision(folder: Path) -> None:
    sv = pytest.importorskip("supervision")
    annotations = {
        path: sv.Detections(np.array(boxes, float).reshape(-1, 4), class_id=np.array(labels, int))
        for path, boxes, labels in zip(paths_of(folder), BOXES, LABELS, strict=True)
    }
    dataset = sv.DetectionDataset(list(NAMES), paths_of(folder), annotations)
    assert_the_same(from_supervision(dataset))
    with pytest.raises(InputError, match=r"expected a supervision\.DetectionDataset, got list"):
        from_supervision([])


def huggingface_columns(folder: Path, box_format: str) -> dict[str, list[Any]]:
    boxes = [np.array(each, float).reshape(-1, 4) for each in BOXES]
    if box_format == "xywh":
        for corners in boxes:
            corners[:, 2:] -= corners[:, :2]
    return {
        "image": [{"bytes": Path(p).read_bytes(), "path": Path(p).name} for p in paths_of(folder)],
        "image_id": [4, 5, 6],
        "objects": [
            {"bbox": found.tolist(), "category": labels}
            for found, labels in zip(boxes, LABELS, strict=True)
        ],
    }


@pytest.mark.parametrize("nested", ["dict of lists", "list of dicts"])
def test_huggingface(folder: Path, nested: str) -> None:
    hf = pytest.importorskip("datasets")
    columns = huggingface_columns(folder, "xywh")
    box = hf.List(hf.Value("float32"), length=4)
    label = hf.ClassLabel(names=list(NAMES))
    objects: Any = {"bbox": hf.List(box), "category": hf.List(label)}
    if nested == "list of dicts":
        objects = hf.List({"bbox": box, "category": label})
        columns["objects"] = [
            [{"bbox": b, "category": c} for b, c in zip(row["bbox"], row["category"], strict=True)]
            for row in columns["objects"]
        ]
    features = {"image": hf.Image(), "image_id": hf.Value("int64"), "objects": objects}
    dataset = hf.Dataset.from_dict(columns, features=hf.Features(features))
    images = from_huggingface(dataset)
    assert images.ids.tolist() == [4, 5, 6]
    assert_the_same(images)
    assert_the_same(from_huggingface(dataset.select([2, 1, 0])).subset([2, 1, 0]))
    numbered = from_huggingface(dataset.remove_columns("image_id"))
    assert_the_same(numbered)
    # Another set with the same ids has another fingerprint.
    bare = dataset.remove_columns("image_id")
    other = bare.select([1, 2, 0])
    for own, another in ((bare, other), (dataset, other.add_column("image_id", [4, 5, 6]))):
        assert from_huggingface(own).fingerprint == from_huggingface(own).fingerprint
        assert from_huggingface(own).fingerprint != from_huggingface(another).fingerprint
    with pytest.raises(InputError, match="has no column 'objects'; found image, image_id, things"):
        from_huggingface(dataset.rename_column("objects", "things"))
    with pytest.raises(InputError, match="has the splits train"):
        from_huggingface(hf.DatasetDict(train=dataset))


def test_huggingface_boxes_in_another_format_and_classes_without_names(folder: Path) -> None:
    hf = pytest.importorskip("datasets")
    features = hf.Features(
        {
            "image": hf.Image(),
            "image_id": hf.Value("int64"),
            "objects": {
                "bbox": hf.List(hf.List(hf.Value("float32"))),
                "category": hf.List(hf.Value("int64")),
            },
        }
    )
    columns = huggingface_columns(folder, "xyxy")
    columns["objects"][2]["bbox"] = [[50, 30, 58, 39]]
    dataset = hf.Dataset.from_dict(columns, features=features)
    with pytest.raises(InputError, match="categories in the column 'objects' are numbers"):
        from_huggingface(dataset)
    with pytest.raises(InputError, match=r"1 boxes of a sample leave .* pass box_format='xyxy'"):
        from_huggingface(dataset, class_names=NAMES)
    images = from_huggingface(dataset, class_names=NAMES, box_format="xyxy")
    assert images.instances is not None
    assert images.instances.boxes[2].tolist() == [50, 30, 58, 39]


def test_ultralytics_labels(folder: Path) -> None:
    labels = []
    for path, boxes, classes in zip(paths_of(folder), BOXES, LABELS, strict=True):
        corners = np.array(boxes, float).reshape(-1, 4)
        centres = (corners[:, :2] + corners[:, 2:]) / 2
        xywh = np.concatenate([centres, corners[:, 2:] - corners[:, :2]], 1) / [60, 40, 60, 40]
        column = np.array(classes, np.float32).reshape(-1, 1)
        labels.append({"im_file": path, "shape": SIZE, "cls": column, "bboxes": xywh})
    names = dict(enumerate(NAMES))
    for dataset in (
        SimpleNamespace(labels=labels, data={"names": names}),  # as a YOLODataset has them
        {"labels": labels, "hash": ""},  # as its cache file does
        labels,
    ):
        images = from_ultralytics(dataset, names)
        np.testing.assert_allclose(images.instances.boxes, [*BOXES[0], *BOXES[2]], atol=1e-5)  # type: ignore[union-attr]
        assert images.class_names == NAMES
    assert from_ultralytics(SimpleNamespace(labels=labels, data={"names": names})).labelled
    with pytest.raises(InputError, match="numbers only; pass class_names="):
        from_ultralytics(labels)
    with pytest.raises(InputError, match=r"labels\[0\] has no 'shape'"):
        from_ultralytics([{**labels[0], "shape": None}], names)


class Samples:
    """The attributes of a FiftyOne data set that are read, with its names."""

    def __init__(self, folder: Path) -> None:
        self.classes: dict[str, list[str]] = {}
        self.default_classes: list[str] = []
        shares = [np.array(each, float).reshape(-1, 4) / [60, 40, 60, 40] for each in BOXES]
        for corners in shares:
            corners[:, 2:] -= corners[:, :2]
        self.columns = {
            "id": ["65a", "65b", "65c"],
            "filepath": paths_of(folder),
            "metadata.height": [40, None, 40],
            "metadata.width": [60, None, 60],
            "truth.detections.label": [[NAMES[row] for row in each] or None for each in LABELS],
            "truth.detections.bounding_box": [each.tolist() or None for each in shares],
        }

    def values(self, fields: list[str]) -> list[list[Any]]:
        return [self.columns[field] for field in fields]

    def get_field_schema(self) -> dict[str, Any]:
        return {
            "truth": SimpleNamespace(document_type=type("Detections", (), {})),
            "weather": SimpleNamespace(document_type=type("Classification", (), {})),
        }


def test_fiftyone(folder: Path) -> None:
    images = from_fiftyone(Samples(folder), "truth")
    assert images.ids.tolist() == ["65a", "65b", "65c"]
    assert images.sizes.tolist() == [list(SIZE)] * 3
    np.testing.assert_allclose(images.instances.boxes, [*BOXES[0], *BOXES[2]], atol=1e-5)  # type: ignore[union-attr]
    assert images.class_names == NAMES
    with pytest.raises(InputError, match="no field 'ground_truth'; found truth, weather"):
        from_fiftyone(Samples(folder))
    with pytest.raises(InputError, match="'weather' holds Classification; expected Detections"):
        from_fiftyone(Samples(folder), "weather")

"""Built data sets are read as image sets: positions, wrappers, class lists."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmdet_case import CLASSES, coco, pipeline

from hardmine.errors import InputError
from hardmine_mmdet.labels import read_dataset


def build(config):
    dataset = DATASETS.build(config)
    dataset.full_init()
    return dataset


def ids_by_position(dataset):
    """The image id that MMDetection has at each position."""
    return [dataset.get_data_info(position)["img_id"] for position in range(len(dataset))]


@pytest.fixture
def parts(scenes):
    train, val = scenes
    return {
        "plain": coco(train, train=True),
        "filtered": coco(train, train=True, filter_cfg={"filter_empty_gt": True, "min_size": 32}),
        "other": coco(val, train=True),
    }


def repeat(inner):
    return {"type": "RepeatDataset", "times": 3, "dataset": inner}


def balanced(inner):
    return {"type": "ClassBalancedDataset", "oversample_thr": 0.9, "dataset": inner}


def mixed(inner):
    steps = [{"type": "Mosaic", "img_scale": (96, 96)}]
    return {"type": "MultiImageMixDataset", "dataset": inner, "pipeline": steps}


WRAPPED = {
    "plain": lambda parts: parts["plain"],
    "filtered": lambda parts: parts["filtered"],
    "repeated": lambda parts: repeat(parts["filtered"]),
    "balanced": lambda parts: balanced(parts["plain"]),
    "concatenated": lambda parts: {
        "type": "ConcatDataset",
        "datasets": [parts["filtered"], repeat(parts["filtered"])],
    },
    "mixed": lambda parts: mixed(parts["plain"]),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_positions_are_those_of_mmdet(parts, name) -> None:
    dataset = build(WRAPPED[name](parts))
    read = read_dataset(dataset)
    assert len(read.image_rows) == len(dataset)
    assert read.images.ids[read.image_rows].tolist() == ids_by_position(dataset)
    assert len(read.images) == len(set(ids_by_position(dataset)))


def test_filtered_images_are_left_out_and_repeats_are_one_image(parts) -> None:
    plain, filtered = (read_dataset(build(parts[name])).images for name in ("plain", "filtered"))
    assert len(filtered) < len(plain) == 24
    repeated = read_dataset(build(repeat(parts["filtered"])))
    assert Counter(repeated.image_rows.tolist()) == dict.fromkeys(range(len(filtered)), 3)


def test_boxes_are_the_annotations(parts, scenes) -> None:
    images = read_dataset(build(parts["plain"])).images
    annotations = json.loads((scenes[0] / "labels.json").read_text())["annotations"]
    expected = sorted(
        (a["image_id"], CLASSES[a["category_id"] - 10], *np.round(a["bbox"], 2).tolist())
        for a in annotations
    )
    instances = images.instances
    widths = instances.boxes[:, 2:] - instances.boxes[:, :2]
    got = sorted(
        (int(images.ids[row]), CLASSES[kind], *np.round([*corner, *size], 2).tolist())
        for row, kind, corner, size in zip(
            instances.image_rows,
            instances.class_rows,
            instances.boxes[:, :2].tolist(),
            widths.tolist(),
            strict=True,
        )
    )
    assert [row[:2] for row in got] == [row[:2] for row in expected]
    np.testing.assert_allclose(
        np.array([row[2:] for row in got]), np.array([row[2:] for row in expected]), atol=0.02
    )
    assert images.path(0).is_file()


def test_classes_are_named_in_the_order_of_mmdets_labels(scenes) -> None:
    chosen = (CLASSES[3], "unicorn", CLASSES[1])
    dataset = build(coco(scenes[0], train=True, metainfo={"classes": chosen}))
    images = read_dataset(dataset).images
    # CocoDataset labels by the order of the annotation file, not of its classes.
    assert images.class_names == (CLASSES[1], CLASSES[3])
    annotations = json.loads((scenes[0] / "labels.json").read_text())["annotations"]
    counts = Counter(CLASSES[a["category_id"] - 10] for a in annotations)
    assert counts[CLASSES[1]] != counts[CLASSES[3]]
    got = images.class_counts.sum(axis=0).tolist()
    assert got == [[counts[name] for name in images.class_names]]


def test_data_sets_with_equal_ids_are_distinguished_by_path(parts) -> None:
    dataset = build({"type": "ConcatDataset", "datasets": [parts["plain"], parts["other"]]})
    read = read_dataset(dataset)
    assert len(read.images) == len(dataset) == 32
    assert sorted(read.images.ids)[0].startswith("train/images/")


def test_different_class_lists_are_refused(parts, scenes) -> None:
    other = coco(scenes[1], train=True, metainfo={"classes": CLASSES[:2]})
    dataset = build({"type": "ConcatDataset", "datasets": [parts["plain"], other]})
    with pytest.raises(InputError, match="2 different class lists"):
        read_dataset(dataset)


def test_an_empty_data_set_is_refused(scenes) -> None:
    empty = coco(scenes[0], train=True, metainfo={"classes": ("unicorn",)})
    # mmengine itself cannot serialize an empty list.
    empty.update(filter_cfg={"filter_empty_gt": True}, serialize_data=False)
    with pytest.raises(InputError, match="holds no images"):
        read_dataset(build(empty))


def test_lvis_keeps_its_absent_classes(photos, tmp_path) -> None:
    """mmdet's LVIS class drops them; hardmine reads them from the same file."""
    labels = json.loads((photos / "lvis_val_100.json").read_text())
    names = tuple(
        category["name"] for category in sorted(labels["categories"], key=lambda c: c["id"])
    )
    for image in labels["images"]:
        image.setdefault("coco_url", "http://images.cocodataset.org/" + image["file_name"])
    file = tmp_path / "lvis.json"
    file.write_text(json.dumps(labels))
    dataset = build(
        {
            "type": "LVISV1Dataset",
            "ann_file": str(file),
            "data_prefix": {"img": str(tmp_path)},
            "metainfo": {"classes": names},
            "pipeline": pipeline(train=True),
        }
    )
    images = read_dataset(dataset).images
    assert images.federated
    column = {name: row for row, name in enumerate(images.class_names)}
    by_id = {category["id"]: category["name"] for category in labels["categories"]}
    for image in labels["images"][:20]:
        [row] = images.rows_of([image["id"]])
        expected = {column[by_id[c]] for c in image["neg_category_ids"]}
        assert set(images.negatives[row].nonzero()[1].tolist()) == expected


def test_other_labels_of_the_same_images_are_said(scenes, tmp_path, caplog) -> None:
    """As where one annotation file has the cars and another the people."""
    train, _ = scenes
    content = json.loads((train / "labels.json").read_text())
    content["annotations"] = content["annotations"][:1]
    (tmp_path / "few.json").write_text(json.dumps(content))
    whole, few = coco(train, train=True), coco(train, train=True, ann_file=f"{tmp_path}/few.json")
    read_dataset(build({"type": "ConcatDataset", "datasets": [whole, whole]}))
    assert "other labels" not in caplog.text
    read_dataset(build({"type": "ConcatDataset", "datasets": [whole, few]}))
    assert "images have other labels where they come again, such as" in caplog.text

"""The fields that LVIS adds, on 100 real images and on a small file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError

Writer = Callable[..., Path]

PICTURES = [
    {
        "id": 10,
        "coco_url": "http://images.cocodataset.org/train2017/1.png",
        "neg_category_ids": [7],
        "not_exhaustive_category_ids": [],
    },
    {
        "id": 20,
        "coco_url": "http://images.cocodataset.org/train2017/2.png",
        "neg_category_ids": [],
        "not_exhaustive_category_ids": [3, 7],
    },
]
CATEGORIES = [
    {"id": 3, "name": "aerosol_can", "synonyms": ["aerosol_can", "spray_can"], "frequency": "c"},
    {"id": 7, "name": "acorn", "synonyms": ["acorn"], "frequency": "r"},
]


def test_lvis_fields_are_read(coco: Writer, tmp_path: Path) -> None:
    file = coco("lvis_v1_train.json", images=PICTURES, categories=CATEGORIES)
    images = load_images(file, "lvis")
    assert images.federated
    assert images.negatives is not None
    assert images.not_exhaustive is not None
    assert images.negatives.toarray().tolist() == [[False, True], [False, False]]
    assert images.not_exhaustive.toarray().tolist() == [[False, False], [True, True]]
    assert images.class_synonyms == (("aerosol_can", "spray_can"), ("acorn",))
    assert images.class_frequency == ("c", "r")


@pytest.mark.parametrize(("source", "prefix"), [(".", "train2017/"), ("train2017", "")])
def test_images_with_only_a_url(coco: Writer, tmp_path: Path, source: str, prefix: str) -> None:
    file = coco("lvis_v1_train.json", images=PICTURES, categories=CATEGORIES)
    images = load_images(tmp_path / source, annotations=file)
    assert images.paths == (f"{prefix}1.png", f"{prefix}2.png")


def test_an_unlisted_category_is_an_error(coco: Writer) -> None:
    pictures = [PICTURES[0], {**PICTURES[1], "not_exhaustive_category_ids": [3, 8]}]
    message = r"images\[1\] \(id 20\): not_exhaustive_category_ids has the category 8"
    with pytest.raises(InputError, match=message):
        load_images(coco(images=pictures))


def test_coco_is_not_accepted_as_lvis(coco: Writer) -> None:
    with pytest.raises(InputError, match="no image has neg_category_ids"):
        load_images(coco(), "lvis")


def test_real_annotations(photos: Path) -> None:
    """The expected values were read from the file with grep."""
    images = load_images(photos / "lvis_val_100.json", check_files=False)
    assert len(images) == 100
    assert len(images.class_names) == 1230
    assert images.instances is not None
    assert len(images.instances) == 977
    row = int(images.rows_of([266409])[0])
    assert images.sizes[row].tolist() == [480, 640]
    # LVIS v0.5 has COCO 2014's file names; the url has COCO 2017's.
    assert images.paths[row].endswith("000000266409.jpg")
    assert images.negatives is not None
    assert images.not_exhaustive is not None
    negative = images.class_ids[images.negatives[row].indices]
    assert sorted(negative.tolist()) == sorted([284, 53, 754, 299, 654, 541, 566])
    assert images.not_exhaustive[row].nnz == 0
    place = int(np.flatnonzero(images.instances.ids == 1)[0])
    box = images.instances.take(np.array([place]))
    assert images.ids[box.image_rows[0]] == 565853
    assert images.class_ids[box.class_rows[0]] == 852
    np.testing.assert_allclose(box.boxes[0], [12.08, 245.03, 44.57, 282.48], atol=1e-4)
    np.testing.assert_allclose(box.areas[0], 959.73)
    spray = images.class_names.index("aerosol_can")
    assert images.class_synonyms[spray] == ("aerosol_can", "spray_can")
    assert images.class_frequency[spray] == "c"
    # No class is both labelled in an image and verified absent from it.
    assert images.negatives.multiply(images.class_counts).nnz == 0

"""A trainer's images and predictions become records."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hardmine.errors import InputError
from hardmine.hosts.images import image_set, num_instances, predicted_boxes
from hardmine.records import ImageSet


def make_images(ids: Sequence[Any] | None = (7, 9), **more: Any) -> ImageSet:
    values: dict[str, Any] = {
        "ids": ids,
        "sizes": [[40, 60], [40, 60]],
        "class_names": ("cat", "dog"),
        "image_rows": [0, 0, 1],
        "class_rows": [1, 0, 1],
        "boxes": [[0, 0, 10, 10], [5, 5, 25, 15], [1, 2, 3, 6]],
        "crowd": [False, True, False],
    }
    return image_set(["/set/a/1.jpg", "/set/b/1.jpg"], **(values | more))


def test_an_image_set_is_put_together() -> None:
    images = make_images()
    assert images.ids.tolist() == [7, 9]
    assert [str(images.path(row)) for row in (0, 1)] == ["/set/a/1.jpg", "/set/b/1.jpg"]
    assert images.instances is not None
    assert images.instances.areas.tolist() == [100, 200, 8]


def test_equal_ids_give_way_to_paths() -> None:
    for ids in ((7, 7), None):
        assert make_images(ids=ids).ids.tolist() == ["a/1.jpg", "b/1.jpg"]


def test_images_without_boxes_are_labelled_images() -> None:
    empty = {"image_rows": [], "class_rows": [], "boxes": [], "crowd": None}
    images = make_images(**empty)
    assert images.labelled
    assert num_instances(images, ("cat", "dog")) == (0, 0)


def test_no_images_are_refused() -> None:
    with pytest.raises(InputError, match="holds no images"):
        image_set([], ids=[], sizes=[], class_names=(), image_rows=[], class_rows=[], boxes=[])


def test_instances_are_counted_by_name() -> None:
    """Groups do not count; a class that the images lack has none."""
    assert num_instances(make_images(), ("unicorn", "dog", "cat")) == (0, 2, 0)


def test_predictions_are_found_by_id() -> None:
    nothing = {"labels": [], "scores": [], "boxes": np.zeros((0, 4))}
    found = {"labels": [1], "scores": [0.5], "boxes": [[1, 2, 3, 4]]}
    detections = predicted_boxes([{"img_id": 9, **found}, {"img_id": 7, **nothing}], make_images())
    assert detections.image_rows.tolist() == [1]
    assert detections.boxes.tolist() == [[1, 2, 3, 4]]
    with pytest.raises(InputError, match="only 1 of 2 validation images have been validated"):
        predicted_boxes([{"img_id": 9, **found}], make_images())
    with pytest.raises(InputError, match=r"1 validated images are not .* img_id 8"):
        predicted_boxes([{"img_id": 8, **found}], make_images())

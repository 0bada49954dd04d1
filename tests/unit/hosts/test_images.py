"""A trainer's images and predictions become records."""

from __future__ import annotations

import numpy as np
import pytest

import hardmine
from hardmine.errors import InputError
from hardmine.hosts.images import num_instances, predicted_boxes
from hardmine.records import ImageSet


def make_images() -> ImageSet:
    return hardmine.images_from(
        ["/set/a/1.jpg", "/set/b/1.jpg"],
        [[[0, 0, 10, 10], [5, 5, 25, 15]], [[1, 2, 3, 6]]],
        [[1, 0], [1]],
        ("cat", "dog"),
        ids=[7, 9],
        crowd=[[False, True], [False]],
    )


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

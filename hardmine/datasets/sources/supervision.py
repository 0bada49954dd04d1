"""Reads a ``supervision.DetectionDataset``."""

from __future__ import annotations

from typing import Any

import numpy as np

from hardmine.datasets.from_objects import images_from
from hardmine.errors import InputError
from hardmine.records import ImageSet


def from_supervision(dataset: Any) -> ImageSet:
    """Make an image set of a ``supervision.DetectionDataset``, in its order.

    Ids are the paths below the images' common folder. The images must be files.

    Args:
        dataset: With ``classes``, ``image_paths`` and ``annotations``.
    """
    for name in ("classes", "image_paths", "annotations"):
        if not hasattr(dataset, name):
            raise InputError(
                f"expected a supervision.DetectionDataset, got {type(dataset).__name__} without "
                f"{name!r}"
            )
    found = [dataset.annotations[path] for path in dataset.image_paths]
    return images_from(
        dataset.image_paths,
        [each.xyxy for each in found],
        [np.zeros(0, int) if each.class_id is None else each.class_id for each in found],
        list(dataset.classes),
    )

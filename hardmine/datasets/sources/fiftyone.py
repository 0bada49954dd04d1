"""Reads a FiftyOne data set or view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hardmine.datasets.from_objects import images_from
from hardmine.errors import InputError
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet


def from_fiftyone(
    dataset: Any, field: str = "ground_truth", class_names: Sequence[str] | None = None
) -> ImageSet:
    """Make an image set of a FiftyOne data set or view, in its order.

    Ids are the ids of the samples.

    Args:
        dataset: A data set or view of images.
        field: The field with ``Detections``.
        class_names: Classes; if None, those that the data set declares for the field or by
            default, or else all that occur, sorted.

    Raises:
        InputError: If the field is missing or holds no detections.
    """
    if not hasattr(dataset, "values") or not hasattr(dataset, "get_field_schema"):
        raise InputError(f"expected a FiftyOne data set or view, got {type(dataset).__name__}")
    schema = dataset.get_field_schema()
    if field not in schema:
        raise InputError(f"the data set has no field {field!r}; found {', '.join(schema)}")
    kind = getattr(schema[field], "document_type", None)
    if getattr(kind, "__name__", "") != "Detections":
        name = getattr(kind, "__name__", type(schema[field]).__name__)
        raise InputError(f"the field {field!r} holds {name}; expected Detections")
    below = f"{field}.detections"
    ids, paths, heights, widths, labels, boxes = dataset.values(
        [
            *("id", "filepath", "metadata.height", "metadata.width"),
            *(f"{below}.label", f"{below}.bounding_box"),
        ]
    )
    sizes = [
        (height, width) if height and width else image_size(path)
        for path, height, width in zip(paths, heights, widths, strict=True)
    ]
    pixels = []
    for found, (height, width) in zip(boxes, sizes, strict=True):
        corners = np.array(found or [], float).reshape(-1, 4)
        corners[:, 2:] += corners[:, :2]
        pixels.append(corners * np.array([width, height, width, height], float))
    if class_names is None:
        class_names = list(dataset.classes.get(field) or dataset.default_classes or ()) or sorted(
            {name for each in labels for name in each or ()}
        )
    names = [np.array(each or [], str) for each in labels]
    return images_from(paths, pixels, names, class_names, ids, sizes=sizes)

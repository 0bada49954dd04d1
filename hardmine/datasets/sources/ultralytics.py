"""Reads the labels that Ultralytics keeps of a data set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hardmine.datasets.from_objects import images_from
from hardmine.errors import InputError
from hardmine.records import ImageSet


def from_ultralytics(
    dataset: Any, class_names: Sequence[str] | Mapping[int, str] | None = None
) -> ImageSet:
    """Make an image set of an Ultralytics data set, or of its label cache, in its order.

    Args:
        dataset: A ``YOLODataset`` or its ``labels``; or what Ultralytics loads from a ``.cache``
            file. The file itself is not read here, because reading it may run code.
        class_names: Names by number; those of the data set's ``data["names"]`` if None.

    Raises:
        InputError: If there are no labels or no names.
    """
    if class_names is None:
        class_names = (getattr(dataset, "data", None) or {}).get("names")
    labels = dataset.get("labels") if isinstance(dataset, Mapping) else dataset
    labels = getattr(labels, "labels", labels)
    if not isinstance(labels, Sequence) or isinstance(labels, str):
        raise InputError(
            f"expected an Ultralytics data set or its labels, got {type(dataset).__name__}"
        )
    if class_names is None:
        raise InputError("the labels hold numbers only; pass class_names=, the yaml's names")
    if missing := [row for row, each in enumerate(labels) if not each.get("shape")]:
        raise InputError(
            f"labels[{missing[0]}] has no 'shape', which Ultralytics removes where batches have "
            "one shape (rect=True); pass the label cache, or a data set with rect=False"
        )
    sizes = [tuple(each["shape"][:2]) for each in labels]
    boxes = []
    for each, (height, width) in zip(labels, sizes, strict=True):
        centres, extents = np.split(np.asarray(each["bboxes"], float).reshape(-1, 4), 2, 1)
        corners = np.concatenate([centres - extents / 2, centres + extents / 2], axis=1)
        boxes.append(corners * np.array([width, height, width, height], float))
    return images_from(
        [each["im_file"] for each in labels],
        boxes,
        [np.asarray(each["cls"]).reshape(-1) for each in labels],
        class_names,
        sizes=sizes,
    )

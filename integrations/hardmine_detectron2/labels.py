"""Reads detectron2's dataset dicts into hardmine's ``ImageSet``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from detectron2.structures import BoxMode

import hardmine
from hardmine.errors import InputError
from hardmine.hosts import unique_ids
from hardmine.records import ImageSet


def read_dicts(
    dataset: Sequence[Mapping[str, Any]], class_names: Sequence[str]
) -> tuple[ImageSet, npt.NDArray[np.int64]]:
    """Read all images and boxes of a data set.

    Args:
        dataset: Dicts with ``file_name``, ``height``, ``width``, ``image_id`` and ``annotations``,
            as ``get_detection_dataset_dicts`` returns them.
        class_names: ``thing_classes`` of the metadata; ``category_id`` is a position in them.

    Returns:
        Each image file once with its labels, and the row of each position of the data set in it.

    Raises:
        InputError: If a dict lacks what is needed.
    """
    row_of_path: dict[str, int] = {}
    sizes: list[tuple[int, int]] = []
    positions, ids, boxes, classes, crowd = [], [], [], [], []
    for position, each in enumerate(dataset):
        try:
            path = str(Path(each["file_name"]).resolve())
            row = row_of_path.setdefault(path, len(row_of_path))
            positions.append(row)
            if row < len(sizes):
                continue
            sizes.append((each["height"], each["width"]))
            ids.append(each["image_id"])
            objects = each.get("annotations", ())
            boxes.append(
                [
                    BoxMode.convert(list(one["bbox"]), one["bbox_mode"], BoxMode.XYXY_ABS)
                    for one in objects
                ]
            )
            classes.append([one["category_id"] for one in objects])
            crowd.append([one.get("iscrowd", 0) == 1 for one in objects])
        except KeyError as error:
            raise InputError(
                f"the dict of image {position} lacks {error}; it needs file_name, height, width, "
                "image_id and, for each of its annotations, bbox, bbox_mode and category_id"
            ) from None
    images = hardmine.images_from(
        list(row_of_path),
        boxes,
        classes,
        class_names,
        ids=unique_ids(ids),
        sizes=sizes,
        crowd=crowd,
    )
    return images, np.array(positions)

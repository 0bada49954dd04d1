"""Reads a column of objects as Hugging Face data sets have it: boxes and categories an image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from hardmine.datasets.instances import make_instances
from hardmine.errors import InputError
from hardmine.records import ImageSet

BoxFormat = Literal["xywh", "xyxy"]
BOXES = ("bbox", "bboxes", "boxes", "box")
CATEGORIES = ("category", "categories", "label", "labels", "category_id", "class", "classes")
_SAMPLE = 32  # images whose size is read to check the boxes' format


def read_objects(
    rows: Sequence[Any], column: str
) -> tuple[list[npt.NDArray[np.float64]], list[npt.NDArray[Any]]]:
    """Boxes and categories of each image; objects are a dict of lists or a list of dicts."""
    example: Any = next((row for row in rows if row), {})
    keys = list(example if isinstance(example, Mapping) else example[0])
    names = []
    for known, what in ((BOXES, "boxes"), (CATEGORIES, "categories")):
        name = next((key for key in known if key in keys), None)
        if name is None:
            raise InputError(
                f"no {what} in the column {column!r}: it holds {', '.join(keys) or 'nothing'}; "
                f"expected one of {', '.join(known)}"
            )
        names.append(name)
    boxes, labels = [], []
    for number, row in enumerate(rows):
        try:
            if isinstance(row, Mapping):
                found, classes = row[names[0]], row[names[1]]
            else:
                found = [each[names[0]] for each in row or ()]
                classes = [each[names[1]] for each in row or ()]
            boxes.append(np.array(found, np.float64).reshape(-1, 4))
            if len(boxes[-1]) != len(classes):
                raise ValueError
        except (KeyError, TypeError, ValueError):
            raise InputError(
                f"{column!r} of image {number}: expected {names[0]} of four numbers and "
                f"{names[1]} for each object, got {row!r:.200}"
            ) from None
        labels.append(np.asarray(classes) if len(classes) else np.zeros(0, np.int64))
    return boxes, labels


def text_classes(
    labels: Sequence[npt.NDArray[Any]], column: str, remedy: str = "pass class_names="
) -> list[str]:
    """Names of categories that are texts, sorted.

    Raises:
        InputError: If they are numbers.
    """
    values = {value for each in labels for value in each.tolist()}
    if not all(isinstance(value, str) for value in values):
        raise InputError(
            f"the categories in the column {column!r} are numbers ({sorted(values)[:5]} ...) and "
            f"the data set holds no names for them; {remedy}"
        )
    return sorted(values)


def require_format(
    boxes: Sequence[npt.NDArray[np.float64]],
    box_format: BoxFormat,
    size_of_row: Callable[[int], Sequence[float]],
    remedy: str,
) -> None:
    """Refuse a box format that leads out of the images where the other one does not.

    Args:
        boxes: For each image (n, 4).
        box_format: What they are read as.
        size_of_row: Returns height and width of an image; called for a sample.
        remedy: What to do, for the message; ``{}`` is the other format.
    """
    labelled = [row for row, found in enumerate(boxes) if len(found)]
    outside = {"xywh": 0, "xyxy": 0}
    for row in labelled[:: max(len(labelled) // _SAMPLE, 1)]:
        try:
            size = size_of_row(row)
        except (InputError, OSError):
            continue  # listed with its problem when an index is built
        if not all(size):
            continue
        limit = np.array([size[1], size[0]]) + 1.0
        ends = {"xyxy": boxes[row][:, 2:], "xywh": boxes[row][:, :2] + boxes[row][:, 2:]}
        outside["xywh"] += int((ends["xywh"] > limit).any(axis=1).sum())
        turned = (ends["xyxy"] < boxes[row][:, :2]).any(axis=1)
        outside["xyxy"] += int((turned | (ends["xyxy"] > limit).any(axis=1)).sum())
    other = "xyxy" if box_format == "xywh" else "xywh"
    if outside[box_format] > 0 and outside[other] == 0:
        raise InputError(
            f"read as {box_format}, {outside[box_format]} boxes of a sample leave their images; "
            f"read as {other}, none does; {remedy.format(other)}"
        )


def to_xyxy(
    boxes: Sequence[npt.NDArray[np.float64]], box_format: BoxFormat
) -> list[npt.NDArray[np.float64]]:
    """Corners of boxes in either format."""
    if box_format == "xyxy":
        return list(boxes)
    return [np.concatenate([each[:, :2], each[:, :2] + each[:, 2:]], axis=1) for each in boxes]


def image_set_of(
    root: Path,
    paths: Sequence[str],
    ids: npt.NDArray[Any],
    sizes: npt.NDArray[np.int32],
    boxes: Sequence[npt.NDArray[np.float64]],
    labels: Sequence[npt.NDArray[Any]],
    class_names: Sequence[str],
    source: str,
    *,
    crowd: npt.NDArray[np.bool_] | None = None,
) -> ImageSet:
    """Put an image set together.

    Args:
        root: Folder of the images.
        paths: N paths below it.
        ids: (N,) image ids.
        sizes: (N, 2) height and width, 0 where unknown.
        boxes: For each image (n, 4) corners.
        labels: For each image its (n,) classes, as names or positions.
        class_names: C names.
        source: The file, for messages.
        crowd: Whether each box is a group, in the order of the images; none is if None.

    Raises:
        InputError: If a class is unknown.
    """
    counts = [len(each) for each in boxes]
    place: dict[Any, int] = {name: row for row, name in enumerate(class_names)}
    place |= {row: row for row in range(len(class_names))}
    image_rows = np.repeat(np.arange(len(paths)), counts)
    found = [value for each in labels for value in each.tolist()]
    for row, value in zip(image_rows.tolist(), found, strict=True):
        if value not in place:
            raise InputError(
                f"{source}: {paths[row]} has the category {value!r}, which is not among the "
                f"{len(class_names)} that the data set declares"
            )
    instances, notes = make_instances(
        image_rows,
        np.array([place[value] for value in found], np.int32),
        np.concatenate([np.zeros((0, 4)), *boxes]),
        sizes,
        crowd=crowd,
        source=source,
        entry=lambda position: f"a box of {paths[image_rows[position]]}",
    )
    return ImageSet(
        root=root,
        ids=ids,
        paths=tuple(paths),
        sizes=sizes,
        class_names=tuple(class_names),
        class_ids=np.arange(len(class_names), dtype=np.int64),
        instances=instances,
        notes=notes,
    )

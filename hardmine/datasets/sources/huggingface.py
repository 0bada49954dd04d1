"""Reads a Hugging Face data set with a column of images and one of objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from hardmine.datasets.from_objects import images_from
from hardmine.datasets.objects_column import (
    CATEGORIES,
    BoxFormat,
    read_objects,
    require_format,
    text_classes,
    to_xyxy,
)
from hardmine.errors import InputError
from hardmine.image_files.decode import size_of
from hardmine.records import ImageSet


@dataclass(frozen=True)
class RowReader:
    """Reads the image files of a data set by row, from memory or from its cache on disk.

    Attributes:
        rows: The data set, its images not decoded.
        column: The column of images.
    """

    rows: Any
    column: str

    def __call__(self, name: str) -> bytes:
        """The bytes of an image file, whose name begins with its row."""
        image = self.rows[int(name.partition("/")[0])][self.column]
        content: bytes | None = image["bytes"]
        return Path(image["path"]).read_bytes() if content is None else content


def from_huggingface(
    dataset: Any,
    *,
    image: str = "image",
    objects: str = "objects",
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    box_format: BoxFormat = "xywh",
) -> ImageSet:
    """Make an image set of a split of a Hugging Face data set, in its order.

    Images stay where they are, in memory or in the cache on disk, and are read when they are
    opened. Their paths hold the names of the files, or their lengths, which tell an index of
    another data set from one of this. Ids are the column ``image_id`` where its values are unique,
    else 0 to N - 1. Sizes are the columns ``height`` and ``width``.

    Args:
        dataset: A ``datasets.Dataset``.
        image: Name of the column of images.
        objects: Name of the column of objects, with boxes and categories of each.
        class_names: Names of the categories, where the data set does not hold them.
        box_format: ``"xywh"``, which nearly all data sets have (COCO's), or ``"xyxy"``.

    Raises:
        InputError: If a column is missing, categories have no names, or boxes have another format.
    """
    columns = _columns(dataset, image, objects)
    undecoded = dataset.select_columns([image]).with_format(None)
    undecoded = undecoded.cast_column(image, type(dataset.features[image])(decode=False))
    reader = RowReader(undecoded, image)
    boxes, labels = read_objects(columns[objects], objects)
    names = class_names if class_names is not None else _class_names(dataset.features[objects])
    if names is None:
        names = text_classes(labels, objects)
    if box_format not in ("xywh", "xyxy"):
        raise InputError(f'box_format must be "xywh" or "xyxy", got {box_format!r}')
    sizes = _sizes(columns)
    require_format(
        boxes,
        box_format,
        lambda row: size_of(reader(str(row)), str(row)) if sizes is None else sizes[row],
        "pass box_format={!r}",
    )
    ids = np.asarray(columns.get("image_id", ()))
    if len(np.unique(ids)) < len(dataset):
        ids = np.arange(len(dataset))
    paths = [f"{row}/{file}" for row, file in enumerate(_files(undecoded, image))]
    return images_from(
        paths, to_xyxy(boxes, box_format), labels, names, ids, sizes=sizes, reader=reader
    )


def _files(undecoded: Any, column: str) -> Iterator[str]:
    """The name of each image file, or its length in bytes if it has no name."""
    for table in undecoded.with_format("arrow").iter(batch_size=1000):
        images = table[column]
        paths = pc.struct_field(images, "path").to_pylist()
        lengths = pc.binary_length(pc.struct_field(images, "bytes")).to_pylist()
        for path, length in zip(paths, lengths, strict=True):
            yield PurePosixPath(path).name if path else str(length)


def _columns(dataset: Any, image: str, objects: str) -> dict[str, list[Any]]:
    if isinstance(dataset, Mapping):
        splits = ", ".join(dataset)
        raise InputError(f"this data set has the splits {splits}; pass one, such as dataset['...']")
    if not hasattr(dataset, "features") or not hasattr(dataset, "select_columns"):
        raise InputError(f"expected a datasets.Dataset, got {type(dataset).__name__}")
    if not hasattr(dataset, "__len__"):
        raise InputError(
            "a streamed data set has no rows to come back to; load it without streaming=True"
        )
    for name, argument in ((image, "image"), (objects, "objects")):
        if name not in dataset.features:
            raise InputError(
                f"the data set has no column {name!r}; found {', '.join(dataset.features)}; "
                f"pass {argument}="
            )
    chosen = [
        objects,
        *(name for name in ("image_id", "height", "width") if name in dataset.features),
    ]
    values: dict[str, list[Any]] = dataset.with_format(None).select_columns(chosen)[:]
    return values


def _class_names(feature: Any) -> list[str] | None:
    """Names of a ``ClassLabel`` among the features of the objects; None if there is none."""
    feature = getattr(feature, "feature", feature)
    for name in CATEGORIES:
        if isinstance(feature, Mapping) and name in feature:
            label = getattr(feature[name], "feature", feature[name])
            names = getattr(label, "names", None)
            return list(names) if names else None
    return None


def _sizes(columns: Mapping[str, Sequence[Any]]) -> npt.NDArray[Any] | None:
    if "height" not in columns or "width" not in columns:
        return None
    return np.array([columns["height"], columns["width"]], np.float64).T

"""A built data set of MMDetection as hardmine's ``ImageSet``.

What the data set itself says is read, not its annotation file: filters, class lists and wrappers
have then done their work, and a position means what the sampler means by it.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from mmengine import fileio

import hardmine
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances, names_to_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetImages:
    """The images behind a data set.

    Attributes:
        images: Each image file once, with its labels.
        image_rows: (len(dataset),) row in ``images`` of each position of the data set: several
            positions show one image where a wrapper repeats it.
    """

    images: ImageSet
    image_rows: npt.NDArray[np.int64]


def read_dataset(dataset: Any) -> DatasetImages:
    """Read every image and box of a built data set, wrappers included.

    Args:
        dataset: A ``BaseDetDataset``, or Concat-, Repeat-, ClassBalanced- or MultiImageMixDataset
            around such, in any nesting.
    """
    leaves: list[Any] = []
    leaf_of, place_in = _flatten(dataset, leaves)
    class_names = _class_names(leaves)
    row_of_path: dict[str, int] = {}
    found: list[dict[str, Any]] = []
    row_of_place = []
    for leaf in leaves:
        rows = np.empty(len(leaf), np.int64)
        for place in range(len(leaf)):
            info = leaf.get_data_info(place)
            path = os.path.abspath(info["img_path"])  # noqa: PTH100 - Path is ten times slower
            row = row_of_path.setdefault(path, len(found))
            if row == len(found):
                found.append(info | {"img_path": path})
            rows[place] = row
        row_of_place.append(rows)
    if not found:
        raise InputError("the training data set holds no images; look at its filter_cfg and paths")
    image_rows = np.empty(len(leaf_of), np.int64)
    for number, rows in enumerate(row_of_place):
        mine = leaf_of == number
        image_rows[mine] = rows[place_in[mine]]
    images = _image_set(found, class_names)
    for leaf in leaves:
        images = _with_federated_labels(images, leaf)
    return DatasetImages(images, image_rows)


def wrappers(dataset: Any) -> Iterator[Any]:
    """The data set and all data sets inside it, outermost first."""
    yield dataset
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for each in inner:
        if each is not None:
            yield from wrappers(each)


def _flatten(
    dataset: Any, leaves: list[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Which innermost data set each position comes from, and its position there."""
    if hasattr(dataset, "datasets"):  # ConcatDataset
        parts = [_flatten(each, leaves) for each in dataset.datasets]
        leaf_of, place_in = (np.concatenate(column) for column in zip(*parts, strict=True))
        return leaf_of, place_in
    if hasattr(dataset, "repeat_indices"):  # ClassBalancedDataset
        leaf_of, place_in = _flatten(dataset.dataset, leaves)
        chosen = np.asarray(dataset.repeat_indices, np.int64)
        return leaf_of[chosen], place_in[chosen]
    if hasattr(dataset, "times"):  # RepeatDataset
        leaf_of, place_in = _flatten(dataset.dataset, leaves)
        return np.tile(leaf_of, dataset.times), np.tile(place_in, dataset.times)
    if hasattr(dataset, "dataset"):  # MultiImageMixDataset
        return _flatten(dataset.dataset, leaves)
    if not hasattr(dataset, "get_data_info"):
        raise InputError(
            f"{type(dataset).__name__} does not say what its images are (no get_data_info); "
            "hardmine reads data sets that derive from mmengine's BaseDataset"
        )
    leaves.append(dataset)
    return np.full(len(dataset), len(leaves) - 1), np.arange(len(dataset))


def _class_names(leaves: list[Any]) -> tuple[str, ...]:
    """Names by label number."""
    lists = {_numbered_names(leaf) for leaf in leaves}
    if len(lists) != 1:
        raise InputError(
            f"the concatenated data sets have {len(lists)} different class lists; give them one "
            "with metainfo=dict(classes=...)"
        )
    return lists.pop()


class _Category(msgspec.Struct):
    id: int
    name: str


class _Annotations(msgspec.Struct):
    categories: list[_Category]


def _numbered_names(leaf: Any) -> tuple[str, ...]:
    """The class list of a data set in the order of its labels.

    CocoDataset numbers labels in the order of the annotation file, whatever the order of its
    ``classes``, and leaves out classes that the file lacks.
    """
    classes = tuple(leaf.metainfo.get("classes", ()))
    category_ids = getattr(leaf, "cat_ids", None)
    if category_ids is None or not leaf.ann_file:
        return classes
    content = fileio.get(leaf.ann_file, backend_args=leaf.backend_args)
    categories = msgspec.json.decode(content, type=_Annotations).categories
    name_of = {category.id: category.name for category in categories}
    names = tuple(name_of[number] for number in category_ids)
    if names != classes:
        logger.warning(
            "%s: MMDetection numbers the classes as the annotation file lists them (%s ...), not "
            "as metainfo does (%s ...)",
            leaf.ann_file,
            ", ".join(names[:3]),
            ", ".join(classes[:3]),
        )
    return names


def _image_set(found: list[dict[str, Any]], class_names: tuple[str, ...]) -> ImageSet:
    paths = [info["img_path"] for info in found]
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    names = [Path(os.path.relpath(path, root)).as_posix() for path in paths]
    ids = np.array([info["img_id"] for info in found])
    if len(np.unique(ids)) < len(ids):
        # Concatenated data sets number their images independently: only paths tell them apart.
        ids = np.array(names)
    boxes, rows, classes, crowd = [], [], [], []
    for row, info in enumerate(found):
        for instance in info.get("instances", ()):
            boxes.append(instance["bbox"])
            rows.append(row)
            classes.append(instance["bbox_label"])
            crowd.append(bool(instance.get("ignore_flag", 0)))
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    return ImageSet(
        root=Path(root),
        ids=ids,
        paths=tuple(names),
        sizes=np.array([[info["height"], info["width"]] for info in found], np.int32),
        class_names=class_names,
        class_ids=np.arange(len(class_names)),
        instances=Instances(
            image_rows=np.asarray(rows, np.int32),
            class_rows=np.asarray(classes, np.int32),
            boxes=xyxy,
            areas=(xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1),
            crowd=np.asarray(crowd, bool),
            ids=np.arange(len(rows)),
        ),
    )


def _with_federated_labels(images: ImageSet, leaf: Any) -> ImageSet:
    """Add what LVIS says of absent and not exhaustively labelled classes; mmdet drops it."""
    if "lvis" not in type(leaf).__name__.lower():
        return images
    annotated = hardmine.load_images(
        Path(leaf.ann_file).parent, format="lvis", annotations=leaf.ann_file, check_files=False
    )
    if annotated.negatives is None or annotated.not_exhaustive is None:
        return images
    rows = annotated.rows_of(images.ids)
    classes = names_to_rows(images.class_names, annotated.class_names)
    if (rows < 0).any() or (classes < 0).any():
        raise InputError(
            f"{leaf.ann_file} does not hold all images and classes of the data set built from it"
        )
    return replace(
        images,
        negatives=annotated.negatives[rows][:, classes],
        not_exhaustive=annotated.not_exhaustive[rows][:, classes],
    )

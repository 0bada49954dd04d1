"""Reads a built MMDetection data set into hardmine's ``ImageSet``.

The data set itself is read, not its annotation file. So filters, class lists and wrappers have been
applied, and positions are those that the sampler draws.
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
from hardmine.hosts import unique_ids
from hardmine.records import ImageSet, names_to_rows

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class DatasetImages:
    """The images of a data set.

    Attributes:
        images: Each image file once, with its labels.
        image_rows: (len(dataset),) row in ``images`` of each position of the data set. A wrapper
            that repeats images gives several positions the same row.
    """

    images: ImageSet
    image_rows: npt.NDArray[np.int64]


def read_dataset(dataset: Any) -> DatasetImages:
    """Read all images and boxes of a built data set.

    Args:
        dataset: A ``BaseDetDataset``, or Concat-, Repeat-, ClassBalanced- or MultiImageMixDataset
            around such data sets, nested in any way.
    """
    leaves: list[Any] = []
    leaf_of, position_in = _flatten(dataset, leaves)
    class_names = _class_names(leaves)
    row_of_path: dict[str, int] = {}
    infos: list[dict[str, Any]] = []
    labelled_anew: set[str] = set()
    leaf_rows = []
    for leaf in leaves:
        rows = np.empty(len(leaf), np.int64)
        for position in range(len(leaf)):
            info = leaf.get_data_info(position)
            path = os.path.abspath(info["img_path"])  # noqa: PTH100 - Path is ten times slower
            row = row_of_path.setdefault(path, len(infos))
            if row == len(infos):
                infos.append(info | {"img_path": path})
            elif _boxes(info) != _boxes(infos[row]):
                labelled_anew.add(path)
            rows[position] = row
        leaf_rows.append(rows)
    if labelled_anew:
        logger.warning(
            "%d images have other labels where they come again, such as %s; mining reads those of "
            "the first time, so join the annotation files",
            len(labelled_anew),
            min(labelled_anew),
        )
    image_rows = np.empty(len(leaf_of), np.int64)
    for number, rows in enumerate(leaf_rows):
        chosen = leaf_of == number
        image_rows[chosen] = rows[position_in[chosen]]
    images = _image_set(infos, class_names)
    for leaf in leaves:
        images = _with_federated_labels(images, leaf)
    return DatasetImages(images, image_rows)


def _boxes(info: dict[str, Any]) -> list[tuple[float, ...]]:
    return sorted((one["bbox_label"], *one["bbox"]) for one in info.get("instances", ()))


def wrappers(dataset: Any) -> Iterator[Any]:
    """Iterate over the data set and all data sets inside it, outermost first."""
    yield dataset
    inner = getattr(dataset, "datasets", None) or [getattr(dataset, "dataset", None)]
    for each in inner:
        if each is not None:
            yield from wrappers(each)


def _flatten(
    dataset: Any, leaves: list[Any]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Find the innermost data set of each position, and the position in it.

    Args:
        dataset: With wrappers.
        leaves: Gets the innermost data sets; the first array holds places in it.
    """
    if hasattr(dataset, "datasets"):  # ConcatDataset
        parts = [_flatten(each, leaves) for each in dataset.datasets]
        leaf_of, position_in = (np.concatenate(column) for column in zip(*parts, strict=True))
        return leaf_of, position_in
    if hasattr(dataset, "repeat_indices"):  # ClassBalancedDataset
        leaf_of, position_in = _flatten(dataset.dataset, leaves)
        chosen = np.asarray(dataset.repeat_indices, np.int64)
        return leaf_of[chosen], position_in[chosen]
    if hasattr(dataset, "times"):  # RepeatDataset
        leaf_of, position_in = _flatten(dataset.dataset, leaves)
        return np.tile(leaf_of, dataset.times), np.tile(position_in, dataset.times)
    if hasattr(dataset, "dataset"):  # MultiImageMixDataset
        return _flatten(dataset.dataset, leaves)
    if not hasattr(dataset, "get_data_info"):
        raise InputError(
            f"{type(dataset).__name__} has no get_data_info, so its images are unknown; "
            "hardmine reads data sets that derive from mmengine's BaseDataset"
        )
    leaves.append(dataset)
    return np.full(len(dataset), len(leaves) - 1), np.arange(len(dataset))


def _class_names(leaves: list[Any]) -> tuple[str, ...]:
    """The common class list of the innermost data sets, in the order of the labels."""
    lists = {_names_by_label(leaf) for leaf in leaves}
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


def _names_by_label(leaf: Any) -> tuple[str, ...]:
    """The class list of a data set in the order of its labels.

    CocoDataset numbers labels in the order of the annotation file, not of its ``classes``, and
    leaves out classes that the file lacks.
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
            "%s: MMDetection numbers the classes in the order of the annotation file (%s ...), not "
            "of metainfo (%s ...)",
            leaf.ann_file,
            ", ".join(names[:3]),
            ", ".join(classes[:3]),
        )
    return names


def _image_set(infos: list[dict[str, Any]], class_names: tuple[str, ...]) -> ImageSet:
    if not infos:
        raise InputError(
            "the data set holds no images; check its filter_cfg, its classes and its paths"
        )
    instances = [info.get("instances", ()) for info in infos]
    return hardmine.images_from(
        [info["img_path"] for info in infos],
        [[one["bbox"] for one in each] for each in instances],
        [[one["bbox_label"] for one in each] for each in instances],
        class_names,
        ids=unique_ids([info["img_id"] for info in infos]),
        sizes=[[info["height"], info["width"]] for info in infos],
        crowd=[[bool(one.get("ignore_flag", 0)) for one in each] for each in instances],
    )


def _with_federated_labels(images: ImageSet, leaf: Any) -> ImageSet:
    """Add LVIS's absent and not exhaustively labelled classes, which mmdet drops."""
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
            f"{leaf.ann_file} lacks {int((rows < 0).sum())} images and {int((classes < 0).sum())} "
            "classes of the data set built from it; was the file changed?"
        )
    return replace(
        images,
        negatives=annotated.negatives[rows][:, classes],
        not_exhaustive=annotated.not_exhaustive[rows][:, classes],
    )

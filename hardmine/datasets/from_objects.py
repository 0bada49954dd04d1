"""Makes an ``ImageSet`` of Python objects: paths, boxes and labels."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.addresses import Address, as_path
from hardmine.datasets.instances import make_instances, make_sizes
from hardmine.datasets.paths import all_inside
from hardmine.errors import InputError
from hardmine.records import ImageSet

_SOURCE = "images_from"


def images_from(
    paths: Sequence[str | PathLike[str]],
    boxes: Sequence[npt.ArrayLike] | None = None,
    labels: Sequence[npt.ArrayLike] | None = None,
    class_names: Sequence[str] | Mapping[int, str] = (),
    ids: npt.ArrayLike | None = None,
    *,
    sizes: npt.ArrayLike | None = None,
    crowd: Sequence[npt.ArrayLike] | None = None,
    reader: Callable[[str], bytes] | None = None,
) -> ImageSet:
    """Make an image set of Python objects.

    Args:
        paths: Path of each of N images; relative ones are relative to the working directory. Or
            their addresses: ``s3://bucket/a.jpg``. With a ``reader``, the name by which it finds
            each image; ids and names tell an index of another set from one of this.
        boxes: For each image an (n, 4) array, xyxy in pixels of the upright image; None if the
            images have no labels.
        labels: For each image the (n,) classes of its boxes: positions in ``class_names``, or
            names.
        class_names: C names, or a mapping of 0 to C - 1 to names.
        ids: (N,) unique numbers or texts; the paths below their common folder if None, or 0 to
            N - 1 with a ``reader``.
        sizes: (N, 2) height and width in pixels, 0 where unknown; all unknown if None. Where a
            size is known, boxes are clipped to the image.
        crowd: For each image (n,) bool, boxes of groups; none if None.
        reader: Returns the bytes of an image file by its name, for images that are not files.
            It is called from several threads, and pickled where processes are spawned.

    Raises:
        InputError: If lengths differ, a class is unknown, or boxes are not xyxy in pixels.
    """
    if not len(paths):
        raise InputError(f"{_SOURCE}: there are no images: paths is empty")
    root, names = _located(paths) if reader is None else (Path(), _names(paths))
    _require_unique(names)
    if ids is None:
        ids = names if reader is None else np.arange(len(names))
    image_ids = _checked_ids(ids, len(names))
    rows = np.zeros((len(names), 2)) if sizes is None else np.asarray(sizes)
    if rows.shape != (len(names), 2):
        raise InputError(
            f"{_SOURCE}: sizes must be (height, width) of each of {len(names)} images, "
            f"got shape {rows.shape}"
        )
    image_sizes = make_sizes(
        [(height, width) for height, width in rows], _SOURCE, lambda row: f"sizes[{row}]"
    )
    if boxes is None or labels is None:
        if boxes is not None or labels is not None or class_names:
            raise InputError(
                f"{_SOURCE}: boxes, labels and class_names go together; give all, or none for "
                "images without labels"
            )
        return ImageSet(root, image_ids, names, image_sizes, reader=reader)
    class_list = class_list_of(class_names)
    counts, xyxy = _stacked(boxes, "boxes", len(names))
    class_rows = np.concatenate(
        [np.zeros(0, np.int64), *_class_rows(labels, class_list, counts)]
    ).astype(np.int32)
    groups = None
    if crowd is not None:
        groups = np.concatenate([np.zeros(0, bool), *(np.asarray(each, bool) for each in crowd)])
        if len(groups) != len(xyxy):
            raise InputError(
                f"{_SOURCE}: crowd must have one value a box (expected {len(xyxy)}, "
                f"got {len(groups)})"
            )
    image_rows = np.repeat(np.arange(len(names)), counts)
    starts = np.cumsum(counts) - counts
    _require_pixels(xyxy)
    instances, notes = make_instances(
        image_rows,
        class_rows,
        xyxy,
        image_sizes,
        crowd=groups,
        source=_SOURCE,
        entry=lambda position: (
            f"boxes[{image_rows[position]}][{position - starts[image_rows[position]]}] "
            f"of {names[image_rows[position]]}"
        ),
    )
    return ImageSet(
        root=root,
        ids=image_ids,
        paths=names,
        sizes=image_sizes,
        class_names=class_list,
        class_ids=np.arange(len(class_list), dtype=np.int64),
        instances=instances,
        notes=notes,
        reader=reader,
    )


def class_list_of(class_names: Sequence[str] | Mapping[int, str]) -> tuple[str, ...]:
    """Class names in the order of their numbers.

    >>> class_list_of({1: "dog", 0: "cat"})
    ('cat', 'dog')
    """
    if isinstance(class_names, Mapping):
        numbers = sorted(int(number) for number in class_names)
        if numbers != list(range(len(numbers))):
            raise InputError(
                f"{_SOURCE}: class_names must be numbered 0 to {len(numbers) - 1}, got {numbers}"
            )
        by_number = {int(number): name for number, name in class_names.items()}
        class_names = [by_number[number] for number in numbers]
    if isinstance(class_names, str) or not all(isinstance(name, str) for name in class_names):
        raise InputError(f"{_SOURCE}: class_names must be a list of texts, got {class_names!r}")
    if not class_names:
        raise InputError(f"{_SOURCE}: boxes need class_names: the queries are made of them")
    repeated = {name for name in class_names if list(class_names).count(name) > 1}
    if repeated:
        raise InputError(f"{_SOURCE}: class_names holds {sorted(repeated)[0]!r} twice")
    return tuple(class_names)


def _located(paths: Sequence[str | PathLike[str]]) -> tuple[Path, tuple[str, ...]]:
    """Common folder of the images, and their paths below it."""
    given = [as_path(path) for path in paths]
    remote = [path for path in given if isinstance(path, Address)]
    if len(remote) == len(given):
        common = as_path(os.path.commonpath([path.parent for path in remote]))
        if not isinstance(common, Address):
            raise InputError(f"{_SOURCE}: paths lie in several buckets or hosts; give those of one")
        names = all_inside(
            (path.relative_to(common).as_posix() for path in remote), _SOURCE, "paths[{}]".format
        )
        return common, names
    if remote:
        raise InputError(
            f"{_SOURCE}: paths holds addresses, such as {remote[0]}, beside paths of this machine; "
            "give all of one kind, or a reader"
        )
    full = [os.path.abspath(path) for path in paths]  # noqa: PTH100  (links are not resolved)
    root = Path(os.path.commonpath([os.path.dirname(path) for path in full]))  # noqa: PTH120
    return root, tuple(Path(path).relative_to(root).as_posix() for path in full)


def _names(paths: Sequence[str | PathLike[str]]) -> tuple[str, ...]:
    return all_inside(map(str, paths), _SOURCE, lambda row: f"paths[{row}]")


def _require_unique(names: Sequence[str]) -> None:
    if len(set(names)) == len(names):
        return
    seen: dict[str, int] = {}
    for row, name in enumerate(names):
        if name in seen:
            raise InputError(
                f"{_SOURCE}: paths[{seen[name]}] and paths[{row}] are both {name!r}; "
                "an image set holds each image once"
            )
        seen[name] = row


def _checked_ids(ids: npt.ArrayLike, count: int) -> npt.NDArray[Any]:
    found = np.asarray(ids)
    if found.dtype.kind == "O" and all(isinstance(each, str) for each in found):
        found = found.astype(str)
    if found.shape != (count,) or found.dtype.kind not in "iuU":
        raise InputError(
            f"{_SOURCE}: ids must be {count} numbers or texts, one an image, "
            f"got {found.dtype} of shape {found.shape}"
        )
    values, repeats = np.unique(found, return_counts=True)
    if (repeats > 1).any():
        raise InputError(f"{_SOURCE}: the id {values[repeats > 1][0]} is given to several images")
    return found if found.dtype.kind == "U" else found.astype(np.int64)


def _stacked(
    arrays: Sequence[npt.ArrayLike], name: str, count: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Number of boxes of each image, and all boxes (M, 4)."""
    if len(arrays) != count:
        raise InputError(
            f"{_SOURCE}: {name} must have one array an image (expected {count}, got {len(arrays)})"
        )
    found = []
    for row, array in enumerate(arrays):
        values = np.asarray(array, np.float64)
        if values.size == 0:
            values = values.reshape(0, 4)
        if values.ndim != 2 or values.shape[1] != 4:
            raise InputError(f"{_SOURCE}: {name}[{row}] must be (n, 4) xyxy, got {values.shape}")
        found.append(values)
    return np.array([len(values) for values in found], np.int64), np.concatenate(found)


def _class_rows(
    labels: Sequence[npt.ArrayLike], class_names: tuple[str, ...], counts: npt.NDArray[np.int64]
) -> list[npt.NDArray[np.int64]]:
    if len(labels) != len(counts):
        raise InputError(
            f"{_SOURCE}: labels must have one array an image (expected {len(counts)}, "
            f"got {len(labels)})"
        )
    place = {name: row for row, name in enumerate(class_names)}
    rows = []
    for image, (label, count) in enumerate(zip(labels, counts.tolist(), strict=True)):
        values = np.asarray(label)
        if values.shape != (count,) and not values.size == count == 0:
            raise InputError(
                f"{_SOURCE}: image {image} has {count} boxes and labels of shape {values.shape}"
            )
        if values.dtype.kind in "UO":
            unknown = next((name for name in values.tolist() if name not in place), None)
            if unknown is not None:
                near = get_close_matches(str(unknown), class_names, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise InputError(
                    f"{_SOURCE}: labels[{image}] holds {unknown!r}, which is not among "
                    f"class_names{hint}"
                )
            values = np.array([place[name] for name in values.tolist()], np.int64)
        elif count and not ((values >= 0) & (values < len(class_names)) & (values % 1 == 0)).all():
            raise InputError(
                f"{_SOURCE}: labels[{image}] must be positions in class_names, 0 to "
                f"{len(class_names) - 1}, got {values.tolist()}"
            )
        rows.append(values.reshape(-1).astype(np.int64))
    return rows


def _require_pixels(boxes: npt.NDArray[np.float64]) -> None:
    """Refuse boxes in other formats, as far as numbers can tell."""
    if not len(boxes):
        return
    if (np.nan_to_num(boxes) <= 1.0).all():
        raise InputError(
            f"{_SOURCE}: no box reaches beyond 1, such as {boxes[0].tolist()}; boxes must be in "
            "pixels, not shares of the image: multiply by width and height"
        )
    turned = (boxes[:, 2:] < boxes[:, :2]).any(axis=1)
    if turned.any():
        raise InputError(
            f"{_SOURCE}: {int(turned.sum())} of {len(boxes)} boxes end before they begin, such as "
            f"{boxes[np.argmax(turned)].tolist()}; boxes must be xyxy, not x, y, width, height"
        )

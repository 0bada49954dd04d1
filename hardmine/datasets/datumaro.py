"""Reads Datumaro's own format: ``annotations/<subset>.json`` and ``images``."""

from __future__ import annotations

import logging
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.datasets.instances import make_sizes
from hardmine.datasets.objects_column import image_set_of
from hardmine.datasets.paths import inside, require_files
from hardmine.errors import InputError
from hardmine.records import ImageSet

_log = logging.getLogger(__name__)


class _Label(msgspec.Struct):
    name: str


class _Labels(msgspec.Struct):
    labels: list[_Label] = []


class _Categories(msgspec.Struct):
    label: _Labels = msgspec.field(default_factory=_Labels)


class _Image(msgspec.Struct):
    path: str = ""
    size: tuple[float, float] | None = None


class _Annotation(msgspec.Struct):
    type: str
    label_id: int | None = None
    bbox: tuple[float, float, float, float] | None = None
    points: list[float] | None = None


class _Item(msgspec.Struct):
    id: str
    annotations: list[_Annotation] = []
    image: _Image = msgspec.field(default_factory=_Image)


class _File(msgspec.Struct):
    categories: _Categories
    items: list[_Item]


_HEAD = re.compile(rb'"dm_format_version"|"media_type"|"categories"\s*:\s*\{')


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read one subset: its boxes, and its polygons as the boxes around them.

    Other annotations are counted in the notes. Ids are those of the items.

    Args:
        source: The folder with ``annotations`` and ``images``, or the json file.
        annotations: The json file; searched inside ``source`` if None.
        split: Name of the subset, if there are several.
        check_files: Whether a missing image is an error.
    """
    file = annotations or (source if source.is_file() else _find(source, split))
    try:
        content = msgspec.json.decode(file.read_bytes(), type=_File)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is no Datumaro file: {error}") from None
    items = content.items
    if not items:
        raise InputError(f"{file}: it lists no items")
    names = [
        inside(item.image.path or f"{item.id}.jpg", file, f"items[{row}]")
        for row, item in enumerate(items)
    ]
    base = source if source.is_dir() else file.parent.parent
    root = _root(base, file.stem, names[0])
    if check_files:
        require_files(root, names, file, lambda row: f"items[{row}] (id {items[row].id})")
    sizes = make_sizes(
        [item.image.size or (0, 0) for item in items], file, lambda row: f"items[{row}]"
    )
    skipped: Counter[str] = Counter()
    objects = [_objects(item, skipped) for item in items]
    images = image_set_of(
        root,
        names,
        np.array([item.id for item in items], str),
        sizes,
        [boxes for boxes, _ in objects],
        [labels for _, labels in objects],
        [label.name for label in content.categories.label.labels],
        str(file),
    )
    notes = tuple(
        f"left out {count} annotations of the type {kind}" for kind, count in skipped.items()
    )
    for note in notes:
        _log.warning("%s: %s", file, note)
    return replace(images, notes=(*images.notes, *notes))


def annotation_files(folder: Path) -> list[Path]:
    """Json files in a data set's folder that start like a Datumaro file."""
    paths = (*folder.glob("annotations/*.json"), *folder.glob("*.json"))
    return sorted(path for path in paths if is_datumaro(path))


def is_datumaro(path: Path) -> bool:
    """Whether a json file starts like one of Datumaro's."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{") and bool(_HEAD.search(head))


def _find(folder: Path, split: str | None) -> Path:
    found = annotation_files(folder)
    chosen = [path for path in found if path.stem == split] if split else found
    if len(chosen) != 1:
        names = ", ".join(path.stem for path in found) or "none"
        raise InputError(f"{folder}: expected one Datumaro subset, found {names}; pass split=")
    return chosen[0]


def _root(base: Path, subset: str, name: str) -> Path:
    """Folder of the images: ``images/<subset>``, ``images`` or the data set's own."""
    roots = (base / "images" / subset, base / "images", base)
    return next((root for root in roots if (root / name).is_file()), roots[0])


def _objects(
    item: _Item, skipped: Counter[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    boxes: list[tuple[float, ...]] = []
    labels: list[int] = []
    for each in item.annotations:
        if each.label_id is None or (each.bbox is None and each.type != "polygon"):
            skipped[each.type] += 1
            continue
        if each.bbox is not None:
            left, top, width, height = each.bbox
            boxes.append((left, top, left + width, top + height))
        else:
            xs, ys = (each.points or [])[::2], (each.points or [])[1::2]
            boxes.append((min(xs), min(ys), max(xs), max(ys)) if ys else (0, 0, 0, 0))
        labels.append(each.label_id)
    return np.array(boxes, np.float64).reshape(-1, 4), np.array(labels, np.int64)

"""A COCO or LVIS file as columns, one pass, in memory that grows with its boxes only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.datasets.instances import make_sizes
from hardmine.datasets.json_rows import read_records
from hardmine.errors import InputError


class ImageRecord(msgspec.Struct, gc=False):
    """An image; LVIS v1 has a url instead of a file name, and the two lists of classes."""

    id: int | str
    file_name: str | None = None
    coco_url: str | None = None
    width: float | None = None
    height: float | None = None
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] | None = None


_NAN = float("nan")
_LARGE = float(np.finfo(np.float32).max)
_NO_BOX = (_NAN, _NAN, _NAN, _NAN)


class AnnotationRecord(msgspec.Struct, gc=False):
    """A labelled box, xywh."""

    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float] | None = _NO_BOX
    area: float | None = _NAN
    iscrowd: int | bool | None = None
    id: int | str | None = None


class CategoryRecord(msgspec.Struct, gc=False):
    """A class; the last two are LVIS's."""

    id: int
    name: str
    synonyms: list[str] | None = None
    frequency: str | None = None


@dataclass(frozen=True)
class Boxes:
    """M labelled boxes in the order of the file.

    Attributes:
        image_ids: (M,) int64 or str.
        category_ids: (M,) int64.
        xyxy: (M, 4) float32, NaN where the annotation has no box.
        areas: (M,) float32, NaN where the file does not say.
        crowd: (M,) bool.
        ids: (M,) int64; the position where the file has no ids, or ids that are text.
    """

    image_ids: npt.NDArray[Any]
    category_ids: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]
    crowd: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """What a file holds.

    Attributes:
        source: The file.
        image_ids: (N,) int64 or str.
        file_names: N names; None where a file has none.
        urls: N urls; None where a file has none.
        sizes: (N, 2) int32 height and width, 0 where unknown.
        categories: In ascending order of their ids.
        boxes: The annotations.
        negatives: (P, 2) int64 pairs of image row and category id; None unless LVIS.
        not_exhaustive: Likewise.
    """

    source: Path
    image_ids: npt.NDArray[Any]
    file_names: tuple[str | None, ...]
    urls: tuple[str | None, ...]
    sizes: npt.NDArray[np.int32]
    categories: tuple[CategoryRecord, ...]
    boxes: Boxes
    negatives: npt.NDArray[np.int64] | None
    not_exhaustive: npt.NDArray[np.int64] | None

    def image_entry(self, row: int) -> str:
        """Name of an image for messages."""
        return f"images[{row}] (id {self.image_ids[row]})"

    def box_entry(self, position: int) -> str:
        """Name of an annotation for messages."""
        return (
            f"annotations[{position}] (id {self.boxes.ids[position]}, "
            f"image {self.boxes.image_ids[position]})"
        )


def read_tables(path: Path) -> Tables:
    """Read the images, annotations and categories of a COCO or LVIS file.

    Raises:
        InputError: If the file is no such file, or a record has the wrong form.
    """
    kinds = {"images": ImageRecord, "annotations": AnnotationRecord, "categories": CategoryRecord}
    images, boxes = _ImageColumns(path), _BoxColumns(path)
    categories: list[CategoryRecord] = []
    lacking = set(kinds)
    for name, start, records in read_records(path, kinds):
        lacking.discard(name)
        try:
            if name == "images":
                images.add(records)
            elif name == "annotations":
                boxes.add(records)
            else:
                np.fromiter(map(attrgetter("id"), records), np.int64)
                categories += records
        except OverflowError:
            raise InputError(
                f"{path}: an id among {name}[{start}] to [{start + len(records) - 1}] does not "
                "fit into 64 bits"
            ) from None
    if lacking:
        raise InputError(
            f"{path}: a COCO file has 'images', 'annotations' and 'categories'; "
            f"this one lacks {', '.join(sorted(lacking))}"
        )
    return Tables(
        source=path,
        categories=tuple(sorted(categories, key=attrgetter("id"))),
        boxes=boxes.join(),
        **images.join(),
    )


class _ImageColumns:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: list[npt.NDArray[Any]] = []
        self.sizes: list[npt.NDArray[np.int32]] = []
        self.names: list[str | None] = []
        self.urls: list[str | None] = []
        self.pairs: dict[str, list[npt.NDArray[np.int64]]] = {}

    def add(self, records: Sequence[ImageRecord]) -> None:
        done = len(self.names)
        self.ids.append(_ids(records, attrgetter("id"), self.path, "images", done))
        sizes = [(record.height or 0, record.width or 0) for record in records]
        self.sizes.append(
            make_sizes(sizes, self.path, lambda row: f"images[{done + row}] (id {records[row].id})")
        )
        self.names += [record.file_name for record in records]
        self.urls += [record.coco_url for record in records]
        for name in ("neg_category_ids", "not_exhaustive_category_ids"):
            listed = list(map(attrgetter(name), records))
            if any(each is not None for each in listed):
                lengths = [len(each or ()) for each in listed]
                rows = np.repeat(np.arange(done, done + len(listed)), lengths)
                ids = np.fromiter(chain.from_iterable(each or () for each in listed), np.int64)
                self.pairs.setdefault(name, []).append(np.stack([rows, ids], axis=1))

    def join(self) -> dict[str, Any]:
        federated = "neg_category_ids" in self.pairs

        def pairs(name: str) -> npt.NDArray[np.int64] | None:
            none = np.zeros((0, 2), np.int64)
            return np.concatenate([none, *self.pairs.get(name, ())]) if federated else None

        return {
            "image_ids": _concatenate(self.ids, np.int64, self.path, "image ids"),
            "file_names": tuple(self.names),
            "urls": tuple(self.urls),
            "sizes": np.concatenate([np.zeros((0, 2), np.int32), *self.sizes]),
            "negatives": pairs("neg_category_ids"),
            "not_exhaustive": pairs("not_exhaustive_category_ids"),
        }


class _BoxColumns:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.count = 0
        self.columns: dict[str, list[npt.NDArray[Any]]] = {}

    def add(self, records: Sequence[AnnotationRecord]) -> None:
        count = len(records)
        # Loops of the standard library in C: this runs once for each of ten million boxes.
        boxes: Iterable[Any] = map(attrgetter("bbox"), records)
        areas: Iterable[Any] = map(attrgetter("area"), records)
        if None in map(attrgetter("bbox"), records) or None in map(attrgetter("area"), records):
            boxes = (record.bbox or _NO_BOX for record in records)
            areas = (_NAN if record.area is None else record.area for record in records)
        xyxy = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * count).reshape(count, 4)
        # Added before rounding to float32, so that the far corner is as exact as the near one.
        with np.errstate(invalid="ignore", over="ignore"):  # such boxes are left out later
            xyxy[:, 2:] += xyxy[:, :2]
            xyxy = xyxy.astype(np.float32)
        slices = {
            "image_ids": _ids(
                records, attrgetter("image_id"), self.path, "annotations", self.count
            ),
            "category_ids": np.fromiter(map(attrgetter("category_id"), records), np.int64, count),
            "xyxy": xyxy,
            "areas": np.fromiter(areas, np.float64, count).clip(0, _LARGE).astype(np.float32),
            "crowd": np.fromiter(map(bool, map(attrgetter("iscrowd"), records)), bool, count),
            "ids": self._own_ids(records),
        }
        for name, column in slices.items():
            self.columns.setdefault(name, []).append(column)
        self.count += count

    def _own_ids(self, records: Sequence[AnnotationRecord]) -> npt.NDArray[np.int64]:
        kinds = set(map(type, map(attrgetter("id"), records)))
        if kinds == {int}:
            return _ids(records, attrgetter("id"), self.path, "annotations", self.count)
        if int in kinds:
            raise InputError(
                f"{self.path}: some annotations have a number as their id and some do not, first "
                f"among annotations[{self.count}] to [{self.count + len(records) - 1}]"
            )
        return np.arange(self.count, self.count + len(records))

    def join(self) -> Boxes:
        kinds = {"xyxy": np.float32, "areas": np.float32, "crowd": np.bool_}
        columns = {}
        for name in Boxes.__dataclass_fields__:
            # Popped, so that no two forms of more than one column are alive at once.
            slices = self.columns.pop(name, [])
            columns[name] = _concatenate(slices, kinds.get(name, np.int64), self.path, name)
        if not self.count:
            columns["xyxy"] = columns["xyxy"].reshape(0, 4)
        return Boxes(**columns)


def _ids(
    records: Sequence[Any], own: Callable[[Any], Any], path: Path, name: str, done: int
) -> npt.NDArray[Any]:
    """(n,) int64 or str ids of a slice of records."""
    kinds = set(map(type, map(own, records)))
    if kinds <= {int}:
        return np.fromiter(map(own, records), np.int64, len(records))
    if kinds == {str}:
        return np.array(list(map(own, records)))
    position = next(i for i, record in enumerate(records) if type(own(record)) is not int)
    raise InputError(
        f"{path}: image ids are numbers and text, mixed; the first text is "
        f"{own(records[position])!r} in {name}[{done + position}]"
    )


def _concatenate(
    slices: Iterable[npt.NDArray[Any]], empty: type, path: Path, name: str
) -> npt.NDArray[Any]:
    columns = [column for column in slices if len(column)]
    if not columns:
        return np.zeros(0, empty)
    if len({column.dtype.kind for column in columns}) > 1:
        raise InputError(f"{path}: {name} are numbers and text, mixed; expected one of them")
    return np.concatenate(columns)

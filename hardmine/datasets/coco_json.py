"""Parses a COCO or LVIS file into arrays, in one pass; masks are never held in memory."""

from __future__ import annotations

import logging
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

log = logging.getLogger(__name__)


class ImageRecord(msgspec.Struct, gc=False):
    """An image. LVIS v1 has a url instead of a file name, and the two lists of categories."""

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
    """An annotation; its box is xywh."""

    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float] | None = _NO_BOX
    area: float | None = _NAN
    iscrowd: int | bool | None = None
    id: int | str | None = None


class CategoryRecord(msgspec.Struct, gc=False):
    """A category; only LVIS has synonyms and a frequency."""

    id: int
    name: str
    synonyms: list[str] | None = None
    frequency: str | None = None


RECORDS = {
    "images": ImageRecord,
    "annotations": AnnotationRecord,
    "categories": CategoryRecord,
}


@dataclass(frozen=True)
class Boxes:
    """M labelled boxes in the order of the file.

    Attributes:
        image_ids: (M,) int64 or str.
        category_ids: (M,) int64.
        xyxy: (M, 4) float32, NaN where the annotation has no box.
        areas: (M,) float32, NaN where the file gives none.
        crowd: (M,) bool.
        ids: (M,) int64; positions if the file has no ids or text ids.
    """

    image_ids: npt.NDArray[Any]
    category_ids: npt.NDArray[np.int64]
    xyxy: npt.NDArray[np.float32]
    areas: npt.NDArray[np.float32]
    crowd: npt.NDArray[np.bool_]
    ids: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Tables:
    """The contents of a COCO or LVIS file.

    Attributes:
        source: The file.
        image_ids: (N,) int64 or str.
        file_names: N names; None where missing.
        urls: N urls; None where missing.
        sizes: (N, 2) int32 height and width, 0 where unknown.
        categories: C categories, sorted by id.
        boxes: The annotations.
        negatives: (P, 2) int64 pairs (image row, category id); None unless LVIS.
        not_exhaustive: (P, 2) int64 pairs (image row, category id); None unless LVIS.
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
        InputError: If a member is missing or a record has the wrong type.
    """
    return tables_of(path, read_records(path, RECORDS))


def tables_of(path: Path, slices: Iterable[tuple[str, int, list[Any]]]) -> Tables:
    """Put together what ``read_records`` yields for ``RECORDS``.

    Args:
        path: Where it comes from, for messages.
        slices: Member name, position of the first record, records.
    """
    images, boxes = _ImageColumns(path), _BoxColumns(path)
    categories: list[CategoryRecord] = []
    missing = set(RECORDS)
    for name, start, records in slices:
        missing.discard(name)
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
    if missing:
        raise InputError(
            f"{path}: a COCO file needs 'images', 'annotations' and 'categories'; "
            f"this one has no {', '.join(sorted(missing))}"
        )
    joined = boxes.join()
    return Tables(
        source=path,
        categories=_named_once(path, sorted(categories, key=attrgetter("id")), joined),
        boxes=joined,
        **images.join(),
    )


def _named_once(
    path: Path, categories: Sequence[CategoryRecord], boxes: Boxes
) -> tuple[CategoryRecord, ...]:
    """Leave out categories without annotations whose name another one has.

    Roboflow writes the group of its classes as a category, which may be called as a class is.
    """
    ids_of: dict[str, list[int]] = {}
    for each in categories:
        ids_of.setdefault(each.name, []).append(each.id)
    repeated = {name: ids for name, ids in ids_of.items() if len(set(ids)) > 1}
    if not repeated:
        return tuple(categories)
    used = set(boxes.category_ids.tolist())
    left_out: set[int] = set()
    for name, ids in repeated.items():
        kept = [each for each in ids if each in used] or ids[:1]
        if len(kept) > 1:
            raise InputError(
                f"{path}: the categories {kept[0]} and {kept[1]} are both called {name!r}, and "
                "both have annotations; make them one, or give them different names"
            )
        left_out |= set(ids) - set(kept)
        log.warning(
            "%s: left out categories without annotations: another is called %r too", path, name
        )
    return tuple(each for each in categories if each.id not in left_out)


class _ImageColumns:
    def __init__(self, path: Path) -> None:
        self.path = path
        self.ids: list[npt.NDArray[Any]] = []
        self.sizes: list[npt.NDArray[np.int32]] = []
        self.names: list[str | None] = []
        self.urls: list[str | None] = []
        self.pairs: dict[str, list[npt.NDArray[np.int64]]] = {}

    def add(self, records: Sequence[ImageRecord]) -> None:
        first = len(self.names)
        self.ids.append(_ids(records, attrgetter("id"), self.path, "images", first))
        sizes = [(record.height or 0, record.width or 0) for record in records]
        self.sizes.append(
            make_sizes(
                sizes, self.path, lambda row: f"images[{first + row}] (id {records[row].id})"
            )
        )
        self.names += [record.file_name for record in records]
        self.urls += [record.coco_url for record in records]
        for name in ("neg_category_ids", "not_exhaustive_category_ids"):
            listed = list(map(attrgetter(name), records))
            if any(each is not None for each in listed):
                lengths = [len(each or ()) for each in listed]
                rows = np.repeat(np.arange(first, first + len(listed)), lengths)
                ids = np.fromiter(chain.from_iterable(each or () for each in listed), np.int64)
                self.pairs.setdefault(name, []).append(np.stack([rows, ids], axis=1))

    def join(self) -> dict[str, Any]:
        federated = "neg_category_ids" in self.pairs

        def pairs(name: str) -> npt.NDArray[np.int64] | None:
            empty = np.zeros((0, 2), np.int64)
            return np.concatenate([empty, *self.pairs.get(name, ())]) if federated else None

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
        # map() and itertools loop in C; a file may have ten million boxes.
        boxes: Iterable[Any] = map(attrgetter("bbox"), records)
        areas: Iterable[Any] = map(attrgetter("area"), records)
        if None in map(attrgetter("bbox"), records) or None in map(attrgetter("area"), records):
            boxes = (record.bbox or _NO_BOX for record in records)
            areas = (_NAN if record.area is None else record.area for record in records)
        xyxy = np.fromiter(chain.from_iterable(boxes), np.float64, 4 * count).reshape(count, 4)
        # Add in float64, so that both corners are rounded to float32 once.
        with np.errstate(invalid="ignore", over="ignore"):  # such boxes are dropped later
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
            "ids": self._annotation_ids(records),
        }
        for name, column in slices.items():
            self.columns.setdefault(name, []).append(column)
        self.count += count

    def _annotation_ids(self, records: Sequence[AnnotationRecord]) -> npt.NDArray[np.int64]:
        kinds = set(map(type, map(attrgetter("id"), records)))
        if kinds == {int}:
            return _ids(records, attrgetter("id"), self.path, "annotations", self.count)
        if int in kinds:
            raise InputError(
                f"{self.path}: some annotations have a number as id and some do not, the first "
                f"among annotations[{self.count}] to [{self.count + len(records) - 1}]"
            )
        return np.arange(self.count, self.count + len(records))

    def join(self) -> Boxes:
        kinds = {"xyxy": np.float32, "areas": np.float32, "crowd": np.bool_}
        columns = {}
        for name in Boxes.__dataclass_fields__:
            # Pop, so that at most one column exists both in slices and joined.
            slices = self.columns.pop(name, [])
            columns[name] = _concatenate(slices, kinds.get(name, np.int64), self.path, name)
        if not self.count:
            columns["xyxy"] = columns["xyxy"].reshape(0, 4)
        return Boxes(**columns)


def _ids(
    records: Sequence[Any], get_id: Callable[[Any], Any], path: Path, name: str, first: int
) -> npt.NDArray[Any]:
    """(n,) int64 or str ids of a slice of records."""
    kinds = set(map(type, map(get_id, records)))
    if kinds <= {int}:
        return np.fromiter(map(get_id, records), np.int64, len(records))
    if kinds == {str}:
        return np.array(list(map(get_id, records)))
    position = next(i for i, record in enumerate(records) if type(get_id(record)) is not int)
    raise InputError(
        f"{path}: image ids mix numbers and text; the first that is not a number is "
        f"{get_id(records[position])!r} in {name}[{first + position}]"
    )


def _concatenate(
    slices: Iterable[npt.NDArray[Any]], empty: type, path: Path, name: str
) -> npt.NDArray[Any]:
    columns = [column for column in slices if len(column)]
    if not columns:
        return np.zeros(0, empty)
    if len({column.dtype.kind for column in columns}) > 1:
        raise InputError(f"{path}: {name} mix numbers and text; expected only one of them")
    return np.concatenate(columns)

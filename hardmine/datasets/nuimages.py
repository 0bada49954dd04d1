"""Reads nuImages: json tables whose records refer to each other by tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.datasets.instances import make_instances, make_sizes
from hardmine.datasets.json_rows import read_records
from hardmine.datasets.paths import inside, require_files
from hardmine.errors import InputError
from hardmine.records import ImageSet


class _Category(msgspec.Struct, gc=False):
    token: str
    name: str


class _SampleData(msgspec.Struct, gc=False):
    token: str
    filename: str
    is_key_frame: bool
    width: float = 0
    height: float = 0


class _ObjectAnn(msgspec.Struct, gc=False):
    token: str
    category_token: str
    sample_data_token: str
    bbox: tuple[float, float, float, float]


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read the key frames (the labelled images) and their objects.

    Ids are the tokens of ``sample_data``. Classes are in the order of ``category.json``; they
    include surfaces ("flat.driveable_surface"), which have no boxes.

    Args:
        source: The folder that contains ``samples``, or the folder of the tables.
        annotations: The folder of the tables, if not inside ``source``.
        split: End of the tables folder's name if there are several, e.g. ``"train"``.
        check_files: Whether a missing image is an error.
    """
    tables = _tables(annotations or source, split)
    root = source.parent if source == tables else source
    categories = list(_records(tables / "category.json", _Category))
    class_rows = {category.token: row for row, (_, category) in enumerate(categories)}
    frames = [
        (position, frame)
        for position, frame in _records(tables / "sample_data.json", _SampleData)
        if frame.is_key_frame
    ]
    image_rows: dict[str, int] = {}
    for row, (position, frame) in enumerate(frames):
        if frame.token in image_rows:
            raise InputError(
                f"{tables / 'sample_data.json'}: [{position}] has the same token {frame.token} "
                f"as [{frames[image_rows[frame.token]][0]}]; tokens must be unique"
            )
        image_rows[frame.token] = row
    paths = tuple(
        inside(frame.filename, tables / "sample_data.json", f"[{position}] {frame.token}")
        for position, frame in frames
    )
    if check_files:
        require_files(root, paths, tables / "sample_data.json", lambda row: f"[{frames[row][0]}]")
    sizes = make_sizes(
        [(frame.height, frame.width) for _, frame in frames],
        tables / "sample_data.json",
        lambda row: f"[{frames[row][0]}]",
    )
    columns = _objects(tables / "object_ann.json", image_rows, class_rows)
    instances, notes = make_instances(
        columns["image"],
        columns["class"],
        columns["box"],
        sizes,
        source=str(tables / "object_ann.json"),
        entry=lambda position: f"[{position}]",
    )
    return ImageSet(
        root=root,
        ids=np.array(list(image_rows), str),
        paths=paths,
        sizes=sizes,
        class_names=tuple(category.name for _, category in categories),
        class_ids=np.arange(len(categories), dtype=np.int64),
        instances=instances,
        notes=notes,
    )


def table_folders(folder: Path) -> list[Path]:
    """Folders with nuImages tables: the folder itself, or folders inside it."""
    folders = (folder, *sorted(folder.glob("v*")))
    return [path for path in folders if (path / "object_ann.json").is_file()]


def _tables(folder: Path, split: str | None) -> Path:
    found = table_folders(folder)
    chosen = [path for path in found if path.name.endswith(split)] if split else found
    if len(chosen) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{folder}: expected one folder of nuImages tables (v1.0-train/object_ann.json)"
            + (f" that ends in {split!r}" if split else "")
            + f", found {names}; pass split="
        )
    return chosen[0]


def _records(file: Path, struct: type) -> Iterator[tuple[int, Any]]:
    for _, start, records in read_records(file, {"": struct}):
        yield from enumerate(records, start)


def _objects(
    file: Path, image_rows: dict[str, int], class_rows: dict[str, int]
) -> dict[str, npt.NDArray[Any]]:
    """Columns of the annotations: image row (M,), class row (M,), box (M, 4)."""
    slices = []
    for _, start, records in read_records(file, {"": _ObjectAnn}):
        count = len(records)
        images = (image_rows.get(record.sample_data_token, -1) for record in records)
        classes = (class_rows.get(record.category_token, -1) for record in records)
        boxes = (number for record in records for number in record.bbox)
        part: dict[str, npt.NDArray[Any]] = {
            "image": np.fromiter(images, np.int32, count),
            "class": np.fromiter(classes, np.int32, count),
            "box": np.fromiter(boxes, np.float64, 4 * count).reshape(count, 4),
        }
        for name, table in (
            ("image", "a key frame of sample_data.json"),
            ("class", "in category.json"),
        ):
            if (part[name] < 0).any():
                unknown = int(np.argmin(part[name]))
                token = getattr(
                    records[unknown], "category_token" if name == "class" else "sample_data_token"
                )
                raise InputError(
                    f"{file}: [{start + unknown}] {records[unknown].token} has the token "
                    f"{token!r}, which is not {table}"
                )
        slices.append(part)
    return {name: np.concatenate([part[name] for part in slices]) for name in slices[0]}

"""Reads Hugging Face parquet files: images and their objects in the rows of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from hardmine.datasets.instances import make_sizes
from hardmine.datasets.objects_column import (
    CATEGORIES,
    image_set_of,
    read_objects,
    require_format,
    text_classes,
    to_xyxy,
)
from hardmine.errors import InputError
from hardmine.image_files.archives import image_column, parquet_file
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet

_PLAIN = {"image_id", "id", "height", "width", "image", "path", "file_name"}


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read the parquet files of one split, as the Hub keeps them.

    Images stay inside the files and are read from there. Boxes are x, y, width, height. Ids are the
    column ``image_id`` where its values are unique, else the paths.

    Args:
        source: A file, or a folder with files such as ``data/train-00000-of-00002.parquet``.
        annotations: Must be None.
        split: What the files' names begin with; needed if there are several splits.
        check_files: Not used: the images are inside the files.
    """
    if annotations is not None:
        raise InputError(f"{source}: parquet files hold their labels; leave annotations= out")
    files = [source] if source.is_file() else _files(source, split)
    root = source.parent if source.is_file() else source
    paths: list[str] = []
    columns: dict[str, list[Any]] = {
        name: [] for name in ("objects", "image_id", "height", "width")
    }
    for file in files:
        images, count = image_column(file)
        table = parquet_file(file)
        names = table.schema_arrow.names
        _require_known(file, names, images)
        wanted = [name for name in columns if name in names]
        for name, values in table.read(columns=wanted).to_pydict().items():
            columns[name] += values
        below = file.relative_to(root).as_posix()
        paths += [f"{below}/{row}" for row in range(count)]
    ids = np.array(columns["image_id"] or paths)
    if len(np.unique(ids)) < len(paths) or ids.dtype.kind not in "iU":
        ids = np.array(paths, str)
    sizes = np.zeros((len(paths), 2), np.int32)
    if len(columns["height"]) == len(columns["width"]) == len(paths):
        pairs = [
            (height or 0, width or 0)
            for height, width in zip(columns["height"], columns["width"], strict=True)
        ]
        sizes = make_sizes(pairs, source, lambda row: paths[row])
    if len(columns["objects"]) != len(paths):
        return ImageSet(root, ids, tuple(paths), sizes)
    boxes, labels = read_objects(columns["objects"], "objects")
    require_format(
        boxes,
        "xywh",
        lambda row: sizes[row] if sizes[row].all() else image_size(root / paths[row]),
        "read them with datasets and from_huggingface(..., box_format={!r})",
    )
    names = _declared_names(files[0]) or text_classes(
        labels, "objects", "read it with datasets and from_huggingface(..., class_names=...)"
    )
    corners = to_xyxy(boxes, "xywh")
    return image_set_of(root, paths, ids, sizes, corners, labels, names, str(source))


def parquet_files(folder: Path) -> list[Path]:
    """Parquet files of a folder, or of ``data`` in it."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))


def _files(folder: Path, split: str | None) -> list[Path]:
    found = parquet_files(folder)
    splits = sorted({file.name.split("-")[0].removesuffix(".parquet") for file in found})
    chosen = split if split is not None else splits[0] if len(splits) == 1 else None
    if chosen not in splits:
        raise InputError(
            f"{folder}: expected parquet files of one split, found {', '.join(splits) or 'none'}; "
            "pass split="
        )
    return [f for f in found if f.name.split("-")[0].removesuffix(".parquet") == chosen]


def _require_known(file: Path, names: list[str], images: str) -> None:
    unknown = sorted({*names} - _PLAIN - {images, "objects"})
    if "objects" not in names and unknown:
        raise InputError(
            f"{file}: no column 'objects'; found {', '.join(names)}; read it with datasets and "
            "from_huggingface(..., objects=...)"
        )


def _declared_names(file: Path) -> list[str]:
    """Class names of the objects in the schema that ``datasets`` writes; empty if none."""
    content = (parquet_file(file).schema_arrow.metadata or {}).get(b"huggingface")
    if content is None:
        return []
    try:
        feature = json.loads(content)["info"]["features"]["objects"]
    except (ValueError, KeyError, TypeError):
        return []
    while isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    if isinstance(feature, list) and feature:
        feature = feature[0]
    for name in CATEGORIES:
        label = feature.get(name) if isinstance(feature, dict) else None
        label = label.get("feature", label) if isinstance(label, dict) else label
        label = label[0] if isinstance(label, list) and label else label
        if isinstance(label, dict) and isinstance(label.get("names"), list):
            return [str(each) for each in label["names"]]
    return []

"""Reads YOLO: a data.yaml, folders of images, and one text file of boxes for each image."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hardmine.datasets.folder import read_list, relative_if_below
from hardmine.datasets.instances import make_instances
from hardmine.datasets.paths import inside, require_files, walk_images
from hardmine.datasets.yolo_labels import LABEL, label_path, read_labels
from hardmine.errors import InputError
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet

_log = logging.getLogger(__name__)


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read one split of a YOLO data set.

    The boxes of ``images/a/b.jpg`` are in ``labels/a/b.txt``, or next to the image if no folder is
    called ``images``. Rows are "class x y w h" or "class x1 y1 x2 y2 ..." (a polygon, of which box
    and area are used). An image without a label file has no objects. Image sizes are read from the
    files' headers, only for images with boxes. Ids are the paths.

    Folders in the yaml may be anywhere; paths in a list of images must be inside the data set.

    Args:
        source: The yaml, its folder, or the data set's root if the yaml is ``annotations``.
        annotations: The yaml.
        split: Key of the yaml; None is ``"train"``.
        check_files: Whether a missing image of a list is an error.
    """
    file = annotations or (source if source.is_file() else _data_file(source))
    data = _load(file)
    names = _names(data, file)
    base = source if annotations and source.is_dir() else _base(data, file)
    images = [
        image for path in _split_paths(data, file, base, split) for image in _images(path, base)
    ]
    if not images:
        raise InputError(f"{file}: no image found for split {split or 'train'!r}")
    root = base
    if not all(image.is_relative_to(base) for image in images):
        root = Path(os.path.commonpath([base, *{image.parent for image in images}]))
    paths = tuple(image.relative_to(root).as_posix() for image in images)
    _require_unique(paths, file)
    if check_files:
        require_files(root, paths, file, lambda row: split or "train")
    return _image_set(root, paths, names, file)


def data_files(folder: Path) -> list[Path]:
    """Yaml files in a folder that describe a data set; only ``data.yaml`` if it exists."""
    if (folder / "data.yaml").is_file():
        return [folder / "data.yaml"]
    found = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    return [path for path in found if _is_data_file(path)]


def _is_data_file(path: Path) -> bool:
    try:
        data = _load(path)
    except InputError:
        return False
    return "names" in data and not {"train", "val", "test"}.isdisjoint(data)


def _data_file(folder: Path) -> Path:
    found = data_files(folder)
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(
            f"{folder}: expected one data.yaml, found {names}; pass the file as source"
        )
    return found[0]


def _load(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: malformed YAML: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise InputError(
            f"{file}: expected keys such as 'names' and 'train', got {type(data).__name__}"
        )
    return data


def _names(data: dict[str, Any], file: Path) -> tuple[str, ...]:
    names = data.get("names")
    if isinstance(names, dict):
        if sorted(names, key=str) != sorted(range(len(names)), key=str):
            raise InputError(f"{file}: names must be numbered 0 to {len(names) - 1}, got {names}")
        names = [names[row] for row in range(len(names))]
    if not isinstance(names, list) or not names:
        raise InputError(f"{file}: names must be a list or a mapping of number to name")
    for row, name in enumerate(names):
        if isinstance(name, bool) or not isinstance(name, (str, int)):
            raise InputError(f"{file}: names: entry {row} is {name!r}, not text; put it in quotes")
    if data.get("nc", len(names)) != len(names):
        raise InputError(f"{file}: nc is {data['nc']}, but there are {len(names)} names")
    return tuple(str(name) for name in names)


def _base(data: dict[str, Any], file: Path) -> Path:
    """Folder that the paths of the splits are relative to."""
    folder = _absolute(file.parent)
    path = data.get("path")
    if not path:
        return folder
    # Authors mean it relative to the yaml, to the folder of all data sets, or to their working
    # directory.
    tried = (folder / str(path), folder.parent / str(path), Path.cwd() / str(path))
    for candidate in tried:
        if candidate.is_dir():
            return _absolute(candidate)
    raise InputError(
        f"{file}: path: {path!r} is not a folder (tried {tried[0]} and {tried[1]}); "
        "correct it, or pass the folder as source and the yaml as annotations="
    )


def _split_paths(data: dict[str, Any], file: Path, base: Path, split: str | None) -> Iterator[Path]:
    """Folders and list files of a split."""
    key = split or "train"
    paths = data.get(key)
    if not paths:
        splits = ", ".join(name for name in ("train", "val", "test") if data.get(name)) or "none"
        raise InputError(f"{file}: no split {key!r}; found {splits}")
    for each in paths if isinstance(paths, list) else [paths]:
        path = base / str(each)
        # Roboflow writes "../train/images" for a folder next to the yaml.
        if not path.exists() and str(each).startswith("../"):
            path = base / str(each)[3:]
        if not path.exists():
            raise InputError(f"{file}: {key}: {base / str(each)} does not exist")
        yield _absolute(path)


def _images(path: Path, base: Path) -> Iterator[Path]:
    """Images of a folder, or of a list file; its paths are relative to it or to the data set."""
    if path.is_dir():
        yield from (path / image for image in walk_images(path))
        return
    for line, name in read_list(path):
        image = inside(relative_if_below(name, base), path, f"line {line}")
        near_list = path.parent / image
        yield near_list if near_list.exists() else base / image


def _require_unique(paths: Sequence[str], file: Path) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise InputError(
                f"{file}: {path!r} is listed twice; an image set holds each image once"
            )
        seen.add(path)


def _absolute(path: Path) -> Path:
    # Links are not resolved: labels lie next to the link, not next to its target.
    return Path(os.path.normpath(path.absolute()))


def _image_set(root: Path, paths: tuple[str, ...], names: tuple[str, ...], file: Path) -> ImageSet:
    files = [label_path(root / path) for path in paths]
    labels = [read_labels(each, len(names)) for each in files]
    if all(rows is None for rows in labels):
        raise InputError(
            f"{file}: none of {len(paths)} images has a label file; expected {files[0]} for "
            f"{root / paths[0]}. For images without labels pass their folder and format='folder'"
        )
    counts = np.array([0 if rows is None else len(rows) for rows in labels])
    measured = _sizes(
        [root / path if count else None for path, count in zip(paths, counts, strict=True)]
    )
    # Boxes are shares of the image size, so an image of unknown size is left out.
    kept = [row for row, size in enumerate(measured) if size is not None]
    unreadable = [path for path, size in zip(paths, measured, strict=True) if size is None]
    sizes = np.array([measured[row] for row in kept], np.int32).reshape(-1, 2)
    boxes = np.concatenate(
        [np.zeros(0, LABEL), *(rows for row in kept if (rows := labels[row]) is not None)]
    )
    image_rows = np.repeat(np.arange(len(kept)), counts[kept])
    scale = sizes[image_rows].astype(np.float64)
    instances, notes = make_instances(
        image_rows,
        boxes["class_row"],
        boxes["xyxy"] * scale[:, [1, 0, 1, 0]],
        sizes,
        areas=boxes["area"] * scale.prod(axis=1),
        source=str(file),
        entry=lambda position: (
            f"{files[kept[image_rows[position]]]} line {boxes['line'][position]}"
        ),
    )
    if unreadable:
        note = f"left out {len(unreadable)} images that cannot be decoded: first {unreadable[0]}"
        _log.warning("%s: %s", file, note)
        notes = (note, *notes)
    chosen = tuple(paths[row] for row in kept)
    return ImageSet(
        root=root,
        ids=np.array(chosen, str),
        paths=chosen,
        sizes=sizes,
        class_names=names,
        class_ids=np.arange(len(names), dtype=np.int64),
        instances=instances,
        notes=notes,
    )


def _sizes(images: Sequence[Path | None]) -> list[tuple[int, int] | None]:
    """Height and width of each image; (0, 0) for None, None if the image cannot be read."""

    def measure(image: Path | None) -> tuple[int, int] | None:
        if image is None:
            return (0, 0)
        try:
            return image_size(image)
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:  # mostly waits for the disk
        return list(pool.map(measure, images))

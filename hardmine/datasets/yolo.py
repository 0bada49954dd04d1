"""YOLO: a data.yaml, folders of images, and one text file of boxes an image."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from hardmine.datasets.folder import below, read_list
from hardmine.datasets.image import image_size
from hardmine.datasets.instances import make_instances
from hardmine.datasets.paths import inside, require_files, walk_images
from hardmine.datasets.yolo_labels import LABEL, label_path, read_labels
from hardmine.errors import InputError
from hardmine.records import ImageSet


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read one split of a YOLO data set.

    The boxes of ``images/a/b.jpg`` are in ``labels/a/b.txt``, or beside the image where no folder
    is called ``images``. Rows are "class x y w h" or "class x1 y1 x2 y2 ..." (a polygon, whose box
    and area are taken). An image without a label file is one without objects. Sizes are read from
    the images' headers where there are boxes to place. Ids are the paths.

    Folders named in the yaml may be anywhere; paths in a list of images stay below the data set.

    Args:
        source: The yaml, its folder, or the data set's root where the yaml is ``annotations``.
        annotations: The yaml.
        split: ``"train"`` if not given.
        check_files: Whether a missing image of a list is an error.
    """
    file = annotations or (source if source.is_file() else _data_file(source))
    data = _load(file)
    names = _names(data, file)
    base = source if annotations and source.is_dir() else _base(data, file)
    images = [image for place in _places(data, file, base, split) for image in _images(place, base)]
    if not images:
        raise InputError(f"{file}: {split or 'train'}: no image found")
    root = base
    if not all(image.is_relative_to(base) for image in images):
        root = Path(os.path.commonpath([base, *{image.parent for image in images}]))
    paths = tuple(image.relative_to(root).as_posix() for image in images)
    _once(paths, file)
    if check_files:
        require_files(root, paths, file, lambda row: split or "train")
    return _image_set(root, paths, names, file)


def data_files(folder: Path) -> list[Path]:
    """Yaml files of a folder that name classes and a training set, ``data.yaml`` alone if there."""
    if (folder / "data.yaml").is_file():
        return [folder / "data.yaml"]
    found = sorted((*folder.glob("*.yaml"), *folder.glob("*.yml")))
    return [path for path in found if _is_data(path)]


def _is_data(path: Path) -> bool:
    try:
        data = _load(path)
    except InputError:
        return False
    return "names" in data and not {"train", "val", "test"}.isdisjoint(data)


def _data_file(folder: Path) -> Path:
    found = data_files(folder)
    if len(found) != 1:
        there = ", ".join(path.name for path in found) or "none"
        raise InputError(f"{folder}: expected one data.yaml, found {there}; name it as the source")
    return found[0]


def _load(file: Path) -> dict[str, Any]:
    try:
        data = yaml.safe_load(file.read_bytes())
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise InputError(f"{file}: malformed YAML: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    if not isinstance(data, dict):
        raise InputError(f"{file}: expected keys such as 'names' and 'train', got {type(data)}")
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
            raise InputError(f"{file}: names: {row} is {name!r}, not text; put it in quotes")
    if data.get("nc", len(names)) != len(names):
        raise InputError(f"{file}: nc is {data['nc']}, and there are {len(names)} names")
    return tuple(str(name) for name in names)


def _base(data: dict[str, Any], file: Path) -> Path:
    """The folder that ``train`` and the others are relative to."""
    here = _plain(file.parent)
    named = data.get("path")
    if not named:
        return here
    # Authors mean it relative to the yaml, to the folder of all data sets, or to where they stood.
    tried = (here / str(named), here.parent / str(named), Path.cwd() / str(named))
    for place in tried:
        if place.is_dir():
            return _plain(place)
    raise InputError(
        f"{file}: path: {named!r} is no folder (looked at {tried[0]} and {tried[1]}); "
        "mend it, or give the folder as source and the yaml as annotations="
    )


def _places(data: dict[str, Any], file: Path, base: Path, split: str | None) -> Iterator[Path]:
    """Folders and lists of a split."""
    key = split or "train"
    named = data.get(key)
    if not named:
        there = ", ".join(name for name in ("train", "val", "test") if data.get(name)) or "none"
        raise InputError(f"{file}: no split {key!r}; there is {there}")
    for each in named if isinstance(named, list) else [named]:
        place = base / str(each)
        # Roboflow writes "../train/images" for the folder beside the yaml.
        if not place.exists() and str(each).startswith("../"):
            place = base / str(each)[3:]
        if not place.exists():
            raise InputError(f"{file}: {key}: {base / str(each)} is not there")
        yield _plain(place)


def _images(place: Path, base: Path) -> Iterator[Path]:
    """Images of a folder, or of a list whose paths are relative to it or to the data set."""
    if place.is_dir():
        yield from (place / path for path in walk_images(place))
        return
    for line, name in read_list(place):
        path = inside(below(name, base), place, f"line {line}")
        beside = place.parent / path
        yield beside if beside.exists() else base / path


def _once(paths: Sequence[str], file: Path) -> None:
    seen: set[str] = set()
    for path in paths:
        if path in seen:
            raise InputError(f"{file}: {path!r} is named twice; a set holds each image once")
        seen.add(path)


def _plain(path: Path) -> Path:
    # Not resolved: labels lie beside a link to the images, not beside where it leads.
    return Path(os.path.normpath(path.absolute()))


def _image_set(root: Path, paths: tuple[str, ...], names: tuple[str, ...], file: Path) -> ImageSet:
    files = [label_path(root / path) for path in paths]
    labels = [read_labels(each, len(names)) for each in files]
    if all(rows is None for rows in labels):
        raise InputError(
            f"{file}: none of {len(paths)} images has a label file; {root / paths[0]} should have "
            f"{files[0]}. For images without labels load their folder with format='folder'"
        )
    counts = np.array([0 if rows is None else len(rows) for rows in labels])
    measured = _sizes(
        [root / path if count else None for path, count in zip(paths, counts, strict=True)]
    )
    # A share of an image that cannot be measured is no box.
    kept = [row for row, size in enumerate(measured) if size is not None]
    lost = [path for path, size in zip(paths, measured, strict=True) if size is None]
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
    if lost:
        notes = (f"left out {len(lost)} images that cannot be decoded: first {lost[0]}", *notes)
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
    """Height and width of each image, (0, 0) where none is asked for, None where unreadable."""

    def measure(image: Path | None) -> tuple[int, int] | None:
        if image is None:
            return (0, 0)
        try:
            return image_size(image)
        except InputError:
            return None

    with ThreadPoolExecutor(8) as pool:  # the time goes into waiting for the disk
        return list(pool.map(measure, images))

"""Reads COCO, and LVIS, which is COCO with additional fields."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.datasets.coco_json import RECORDS, Tables, read_tables, tables_of
from hardmine.datasets.datumaro import is_datumaro
from hardmine.datasets.instances import make_instances
from hardmine.datasets.lvis import add_lvis_fields
from hardmine.datasets.paths import all_inside, require_files
from hardmine.errors import InputError
from hardmine.records import ImageSet, rows_of

_log = logging.getLogger(__name__)


def _last_parts(path: str | None, parts: int) -> str | None:
    return "/".join(re.split(r"[/\\]", path)[-parts:]) if path else None


# Rules that derive an image's path from its file_name and its coco_url; the most literal is first.
# LVIS v1 has "http://images.cocodataset.org/train2017/000000000009.jpg" and no file name.
# Objects365 has "images/v1/patch8/a.jpg" for a file that unpacks to "patch8/a.jpg".
_PathRule = Callable[["str | None", "str | None"], "str | None"]
_PATH_RULES: tuple[_PathRule, ...] = (
    lambda name, url: name,
    lambda name, url: _last_parts(url, 2),
    lambda name, url: _last_parts(url, 1),
    lambda name, url: _last_parts(name, 2),
    lambda name, url: _last_parts(name, 1),
)


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a COCO or LVIS data set.

    Args:
        source: The image folder, the data set's folder, or the json file.
        annotations: The json file; searched inside ``source`` if None.
        split: Part of the json file's path if a folder has several, e.g. ``"train2017"``.
        check_files: Whether a missing image is an error.
    """
    file = annotations or (source if source.is_file() else find_annotations(source, split))
    tables = read_tables(file)
    bases: tuple[Path, ...] = (file.parent, file.parent.parent)
    if source.is_dir():
        # Roboflow's json lies beside its images, in the split's folder.
        bases = (source, file.parent) if file.parent.is_relative_to(source) else (source,)
    root, paths = _locate_images(tables, bases, check_files)
    images = _image_set(tables, root, paths)
    return images if tables.negatives is None else add_lvis_fields(images, tables)


def from_api(api: Any, ids: Sequence[Any], root: Path) -> ImageSet:
    """Make an image set of some images of a ``pycocotools.coco.COCO``, in the order of the ids.

    Args:
        api: With ``imgs``, ``imgToAnns`` and ``cats``.
        ids: Image ids, all numbers or all texts.
        root: Folder of the images.
    """
    members = {
        "images": [api.imgs[each] for each in ids],
        "annotations": [each for image in ids for each in api.imgToAnns.get(image, ())],
        "categories": list(api.cats.values()),
    }
    try:
        slices = [
            (name, 0, msgspec.convert(members[name], list[struct]))  # type: ignore[valid-type]
            for name, struct in RECORDS.items()
        ]
    except msgspec.ValidationError as error:
        raise InputError(f"{root}: the COCO object holds what no COCO file does: {error}") from None
    tables = tables_of(root, slices)
    rule = next(rule for rule in _PATH_RULES if rule(tables.file_names[0], tables.urls[0]))
    return _image_set(tables, root, _paths(tables, rule, range(len(ids))))


def annotation_files(folder: Path) -> list[Path]:
    """Json files in a data set's folder that start like a COCO file."""
    paths = (
        *folder.glob("annotations/*.json"),
        *folder.glob("*.json"),
        *folder.glob("*/_annotations.coco.json"),
    )
    found = (path for path in paths if _MEMBER.search(_head(path)))
    return sorted(path for path in found if not is_datumaro(path))


_MEMBER = re.compile(
    rb'^(?:\xef\xbb\xbf)?\s*\{\s*"(?:info|licenses|images|annotations|categories|type|videos)"'
)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)


def find_annotations(folder: Path, split: str | None) -> Path:
    """Find the annotation file of a data set's folder.

    Raises:
        InputError: If no file fits ``split``, or more than one.
    """
    found = annotation_files(folder)
    chosen = (
        [path for path in found if split in path.relative_to(folder).as_posix()] if split else found
    )
    # COCO's folder also has "captions_*" and "person_keypoints_*"; prefer "instances_*".
    boxes = [path for path in chosen if path.stem.startswith("instances")]
    chosen = boxes or chosen
    if len(chosen) != 1:
        names = ", ".join(path.relative_to(folder).as_posix() for path in found) or "none"
        raise InputError(
            f"{folder}: expected one COCO annotation file"
            + (f" with {split!r} in its path" if split else "")
            + f", found {names}; pass split=, or the file as annotations="
        )
    return chosen[0]


def _image_set(tables: Tables, root: Path, paths: tuple[str, ...]) -> ImageSet:
    source = tables.source
    class_ids = np.array([each.id for each in tables.categories], np.int64)
    _require_unique(source, "categories", class_ids)
    _require_unique(source, "images", tables.image_ids)
    boxes = tables.boxes
    _require_unique(source, "annotations", boxes.ids)
    class_rows = rows_of(class_ids, boxes.category_ids)
    if (class_rows < 0).any():
        position = int(np.argmin(class_rows))
        raise InputError(
            f"{source}: {tables.box_entry(position)} has the category "
            f"{boxes.category_ids[position]}, which is not among 'categories'"
        )
    types = {ids.dtype.kind for ids in (tables.image_ids, boxes.image_ids) if len(ids)}
    if len(types) > 1:
        raise InputError(
            f"{source}: {tables.image_entry(0)} and {tables.box_entry(0)} have image ids "
            "of two types; all must be numbers, or all text"
        )
    image_rows = rows_of(tables.image_ids, boxes.image_ids)
    known = image_rows >= 0
    notes: tuple[str, ...] = ()
    if not known.all():
        unknown = int((~known).sum())
        first = tables.box_entry(int(np.argmin(known)))
        if 2 * unknown > len(known):
            raise InputError(
                f"{source}: {unknown} of {len(known)} annotations have an image_id that is not "
                f"among 'images', the first is {first}"
            )
        notes = (f"left out {unknown} annotations of images that are not listed: first {first}",)
        _log.warning("%s: %s", source, notes[0])
    instances, box_notes = make_instances(
        image_rows,
        class_rows,
        boxes.xyxy,
        tables.sizes,
        areas=boxes.areas,
        crowd=boxes.crowd,
        ids=boxes.ids,
        source=str(source),
        entry=tables.box_entry,
    )
    return ImageSet(
        root=root,
        ids=tables.image_ids,
        paths=paths,
        sizes=tables.sizes,
        class_names=tuple(each.name for each in tables.categories),
        class_ids=class_ids,
        instances=instances,
        notes=notes + box_notes,
    )


def _require_unique(source: Path, name: str, ids: npt.NDArray[Any]) -> None:
    if ids.dtype.kind == "i" and (np.diff(ids) > 0).all():
        return
    order = np.argsort(ids, kind="stable")
    duplicates = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(duplicates):
        first, second = order[duplicates[0]], order[duplicates[0] + 1]
        raise InputError(
            f"{source}: {name}[{first}] and {name}[{second}] have the same id {ids[first]}; "
            f"ids of {name} must be unique"
        )


def _locate_images(
    tables: Tables, bases: Sequence[Path], check_files: bool
) -> tuple[Path, tuple[str, ...]]:
    """Find the image root and the images' paths relative to it.

    Annotation files name their images in several ways, and few say relative to which folder. Tries
    combinations of folder and path rule on a sample of at most 32 images; the first that finds
    any is used for all.
    """
    count = len(tables.file_names)
    if not count:
        return bases[0], ()
    sample = range(0, count, max(count // 16, 1))
    rules = [rule for rule in _PATH_RULES if rule(tables.file_names[0], tables.urls[0])]
    if not rules:
        raise InputError(
            f"{tables.source}: {tables.image_entry(0)} has neither a file_name nor a coco_url"
        )
    roots = list(dict.fromkeys(root for base in bases for root in _roots(base, tables.source)))
    for root in roots:
        for rule in rules:
            if any((root / path).is_file() for path in _paths(tables, rule, sample)):
                paths = _paths(tables, rule, range(count))
                _require_as_many(tables, root, paths)
                if check_files:
                    require_files(root, paths, tables.source, tables.image_entry)
                return root, paths
    paths = _paths(tables, rules[0], range(count))
    if check_files:
        searched = ", ".join(str(root) for root in roots)
        raise InputError(
            f"{tables.source}: no image found: {tables.image_entry(0)} is {paths[0]!r}, "
            f"searched in {searched}; pass source=, the image folder, and annotations="
            f"{tables.source.name!r} (check_files=False loads the labels alone)"
        )
    return roots[0], paths


def _require_as_many(tables: Tables, root: Path, paths: tuple[str, ...]) -> None:
    """Refuse paths that make one file of two: names cut to "0001.jpg", of two cameras' folders."""
    named = [name or url for name, url in zip(tables.file_names, tables.urls, strict=True)]
    if len(set(paths)) == len(set(named)):
        return
    first_of: dict[str, int] = {}
    for row, path in enumerate(paths):
        first = first_of.setdefault(path, row)
        if named[first] != named[row]:
            raise InputError(
                f"{tables.source}: {tables.image_entry(first)} is {named[first]!r} and "
                f"{tables.image_entry(row)} is {named[row]!r}, but below {root} there is only "
                f"{path!r} for both; pass the folder that these names are relative to"
            )


def _paths(tables: Tables, rule: _PathRule, rows: range) -> tuple[str, ...]:
    """Paths of some images by one rule."""
    names = (rule(tables.file_names[row], tables.urls[row]) or "" for row in rows)
    return all_inside(names, tables.source, lambda position: tables.image_entry(rows[position]))


def _roots(base: Path, file: Path) -> Iterator[Path]:
    """Folders that may hold the images: ``train2017/`` for ``instances_train2017.json``, etc."""
    yield base
    yield base / "images"
    part = file.stem.rpartition("_")[2]
    for word in dict.fromkeys((part, re.sub(r"\d+$", "", part))):
        if word:
            yield from (base / word, base / word / "images", base / "images" / word)

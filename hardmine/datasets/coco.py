"""COCO json, and LVIS, which is COCO with additions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.datasets.coco_json import Tables, read_tables
from hardmine.datasets.instances import make_instances
from hardmine.datasets.lvis import federate
from hardmine.datasets.paths import all_inside, require_files
from hardmine.errors import InputError
from hardmine.records import ImageSet, rows_of


def _end(path: str | None, parts: int) -> str | None:
    return "/".join(re.split(r"[/\\]", path)[-parts:]) if path else None


# Ways to read an image's path off its file name and its url, the most literal first. LVIS v1 has
# "http://images.cocodataset.org/train2017/000000000009.jpg" and no file name; Objects365 has
# "images/v1/patch8/a.jpg" for what unpacks to "patch8/a.jpg".
_Form = Callable[["str | None", "str | None"], "str | None"]
_FORMS: tuple[_Form, ...] = (
    lambda name, url: name,
    lambda name, url: _end(url, 2),
    lambda name, url: _end(url, 1),
    lambda name, url: _end(name, 2),
    lambda name, url: _end(name, 1),
)


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a COCO or LVIS data set.

    Args:
        source: The image folder, the data set's folder, or the json file itself.
        annotations: The json file; looked for below ``source`` if not given.
        split: Part of the json's name where a folder holds several, e.g. ``"train2017"``.
        check_files: Whether a missing image is an error.
    """
    file = annotations or (source if source.is_file() else find_annotations(source, split))
    tables = read_tables(file)
    bases = (source,) if source.is_dir() else (file.parent, file.parent.parent)
    root, paths = _locate(tables, bases, check_files)
    images = _image_set(tables, root, paths)
    return images if tables.negatives is None else federate(images, tables)


def annotation_files(folder: Path) -> list[Path]:
    """Json files of a data set's folder that begin as COCO files do."""
    places = (*folder.glob("annotations/*.json"), *folder.glob("*.json"))
    return sorted(path for path in places if _MEMBER.search(_head(path)))


_MEMBER = re.compile(
    rb'^(?:\xef\xbb\xbf)?\s*\{\s*"(?:info|licenses|images|annotations|categories|type|videos)"'
)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(256)


def find_annotations(folder: Path, split: str | None) -> Path:
    """The one annotation file of a data set's folder.

    Raises:
        InputError: If there is none, or more than one that ``split`` names.
    """
    found = annotation_files(folder)
    chosen = [path for path in found if split in path.stem] if split else found
    # "captions_" and "person_keypoints_" lie beside "instances_" in COCO's own folder.
    boxes = [path for path in chosen if path.stem.startswith("instances")]
    chosen = boxes or chosen
    if len(chosen) != 1:
        there = ", ".join(path.relative_to(folder).as_posix() for path in found) or "none"
        raise InputError(
            f"{folder}: expected one COCO annotation file"
            + (f" with {split!r} in its name" if split else "")
            + f", found {there}; name it with annotations="
        )
    return chosen[0]


def _image_set(tables: Tables, root: Path, paths: tuple[str, ...]) -> ImageSet:
    source = tables.source
    class_ids = np.array([each.id for each in tables.categories], np.int64)
    _unique(source, "categories", class_ids)
    _unique(source, "images", tables.image_ids)
    boxes = tables.boxes
    _unique(source, "annotations", boxes.ids)
    class_rows = rows_of(class_ids, boxes.category_ids)
    if (class_rows < 0).any():
        position = int(np.argmin(class_rows))
        raise InputError(
            f"{source}: {tables.box_entry(position)} has the category "
            f"{boxes.category_ids[position]}, which is not among 'categories'"
        )
    both = len(boxes.ids) and len(tables.image_ids)
    if both and boxes.image_ids.dtype.kind != tables.image_ids.dtype.kind:
        raise InputError(
            f"{source}: {tables.image_entry(0)} and {tables.box_entry(0)} name images in two ways; "
            "ids must be all numbers or all text"
        )
    image_rows = rows_of(tables.image_ids, boxes.image_ids)
    known = image_rows >= 0
    notes: tuple[str, ...] = ()
    if not known.all():
        lost = int((~known).sum())
        first = tables.box_entry(int(np.argmin(known)))
        if 2 * lost > len(known):
            raise InputError(
                f"{source}: {lost} of {len(known)} annotations are of images that are not among "
                f"'images', the first is {first}"
            )
        notes = (f"left out {lost} annotations of images that are not listed: first {first}",)
    instances, more = make_instances(
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
        notes=notes + more,
    )


def _unique(source: Path, name: str, ids: npt.NDArray[Any]) -> None:
    if ids.dtype.kind == "i" and (np.diff(ids) > 0).all():
        return
    order = np.argsort(ids, kind="stable")
    twice = np.flatnonzero(ids[order[1:]] == ids[order[:-1]])
    if len(twice):
        one, other = order[twice[0]], order[twice[0] + 1]
        raise InputError(
            f"{source}: {name}[{one}] and {name}[{other}] have the same id {ids[one]}; "
            f"ids of {name} must be unique"
        )


def _locate(
    tables: Tables, bases: tuple[Path, ...], check_files: bool
) -> tuple[Path, tuple[str, ...]]:
    """The folder that the images' paths are relative to, and the paths.

    Files name their images in several ways, and few say relative to what. The first combination of
    folder and name that leads to an image, of a few tried, is taken for all.
    """
    count = len(tables.file_names)
    if not count:
        return bases[0], ()
    tried = range(0, count, max(count // 16, 1))
    forms = [form for form in _FORMS if form(tables.file_names[0], tables.urls[0])]
    if not forms:
        raise InputError(
            f"{tables.source}: {tables.image_entry(0)} has neither a file_name nor a coco_url"
        )
    roots = [root for base in bases for root in _roots(base, tables.source)]
    for root in roots:
        for form in forms:
            if any((root / path).is_file() for path in _paths(tables, form, tried)):
                paths = _paths(tables, form, range(count))
                if check_files:
                    require_files(root, paths, tables.source, tables.image_entry)
                return root, paths
    paths = _paths(tables, forms[0], range(count))
    if check_files:
        looked = ", ".join(str(root) for root in roots)
        raise InputError(
            f"{tables.source}: no image found: {tables.image_entry(0)} is named {paths[0]!r}, "
            f"looked in {looked}; give the image folder and annotations={tables.source.name!r}, "
            "or check_files=False to load the labels alone"
        )
    return roots[0], paths


def _paths(tables: Tables, form: _Form, rows: range) -> tuple[str, ...]:
    """Paths of some images in one form."""
    names = (form(tables.file_names[row], tables.urls[row]) or "" for row in rows)
    return all_inside(names, tables.source, lambda place: tables.image_entry(rows[place]))


def _roots(base: Path, file: Path) -> Iterator[Path]:
    """Where the images of a file may lie: ``instances_train2017.json`` has ``train2017/``."""
    yield base
    yield base / "images"
    part = file.stem.rpartition("_")[2]
    for word in dict.fromkeys((part, re.sub(r"\d+$", "", part))):
        if word:
            yield from (base / word, base / word / "images", base / "images" / word)

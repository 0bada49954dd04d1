"""Lists the images inside tar files, such as WebDataset's, with the labels beside them."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from hardmine.datasets.folder import unlabelled_images
from hardmine.datasets.instances import make_sizes
from hardmine.datasets.objects_column import (
    BOXES,
    image_set_of,
    read_objects,
    require_format,
    text_classes,
    to_xyxy,
)
from hardmine.datasets.paths import SUFFIXES, inside
from hardmine.errors import InputError
from hardmine.image_files.archives import tar_members
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet

_log = logging.getLogger(__name__)


class _Category(msgspec.Struct):
    id: int
    name: str


class _Categories(msgspec.Struct):
    categories: list[_Category]


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a tar file, or all tar files of a folder, in the order of their members.

    Images stay inside the files. The labels of ``a.jpg`` are in ``a.json``: COCO's ``annotations``,
    Hugging Face's ``objects``, or boxes and categories as they stand; boxes are x, y, width,
    height. Files without any boxes, as img2dataset writes them, give images without labels, and a
    note counts what was not read. Ids are ``image_id`` in the json files where all have another,
    else paths, such as ``0001.tar/a.jpg``.

    Args:
        source: The file or the folder.
        annotations: A json file with COCO's ``categories``, where categories are numbers.
            ``<split>-index.json`` beside the tar files, as RF-DETR writes it, if None.
        split: What the files' names begin with; None takes all.
        check_files: Not used: the images are inside the files.
    """
    files = [source] if source.is_file() else tar_files(source, split or "")
    root = source.parent if source.is_file() else source
    paths: list[str] = []
    labels: list[Any] = []
    others: list[str] = []
    for file in files:
        members = tar_members(file)
        contents = _json_members(file, members)
        for name in members:
            path = f"{file.name}/{inside(name, file, 'a member')}"
            if PurePosixPath(name).suffix.lower() in SUFFIXES:
                paths.append(path)
                labels.append(contents.get(_key(name)))
            else:
                others.append(path)
    if not paths:
        raise InputError(
            f"{source}: no image in {len(files)} tar files"
            + (f"; they hold {', '.join(others[:3])} ..." if others else "")
        )
    if any(_objects(each) is not None for each in labels):
        return _labelled(source, root, paths, labels, _class_names(root, annotations, split))
    if annotations is not None:
        raise InputError(f"{source}: annotations= is given, and no json file in it has boxes")
    images = unlabelled_images(root, tuple(paths))
    if not others:
        return images
    return _with_note(
        images,
        source,
        f"read images only: {len(others)} other members, such as {others[0]}, hold no boxes that "
        "are known here; give them to hardmine.images_from",
    )


def tar_files(folder: Path, prefix: str = "") -> list[Path]:
    """Tar files of a folder, sorted."""
    return sorted(folder.glob(f"{prefix}*.tar"))


def _key(name: str) -> str:
    """What WebDataset puts members together by: the path up to the first dot of the name.

    >>> _key("street.3/a.left.jpg")
    'street.3/a'
    """
    folder, slash, last = name.rpartition("/")
    return folder + slash + last.partition(".")[0]


def _json_members(file: Path, members: Mapping[str, tuple[int, int]]) -> dict[str, Any]:
    """The content of each member with the extension ``.json``, by its key."""
    found = {}
    with file.open("rb") as opened:
        for name, (start, length) in members.items():
            if name.removeprefix(_key(name)).lower() != ".json":
                continue
            opened.seek(start)
            try:
                # Not msgspec, which refuses the NaN that img2dataset writes.
                found[_key(name)] = json.loads(opened.read(length))
            except (ValueError, RecursionError) as error:
                raise InputError(f"{file / name}: no valid JSON: {error}") from None
    return found


def _objects(content: Any) -> Any:
    """The objects in a json file, in a form that ``read_objects`` reads; None if it has none."""
    found = [content]
    if isinstance(content, Mapping):
        found = [content[name] for name in ("annotations", "objects") if name in content] + found
    return next((each for each in found if _hold_boxes(each)), None)


def _hold_boxes(objects: Any) -> bool:
    """Whether objects are a dict of lists, or a list of dicts, with boxes; an empty list is."""
    if isinstance(objects, list):
        return not objects or any(
            isinstance(each, Mapping) and _hold_boxes(each) for each in objects
        )
    return isinstance(objects, Mapping) and any(name in objects for name in BOXES)


def _class_names(root: Path, annotations: Path | None, split: str | None) -> dict[int, str] | None:
    """Names of categories that are numbers; None if no file tells them."""
    file = annotations or next(iter(sorted(root.glob(f"{split or '*'}-index.json"))), None)
    if file is None:
        return None
    try:
        categories = msgspec.json.decode(file.read_bytes(), type=_Categories).categories
    except (msgspec.MsgspecError, OSError) as error:
        raise InputError(f"{file}: expected COCO's categories, each id and name: {error}") from None
    return {category.id: category.name for category in categories}


def _labelled(
    source: Path,
    root: Path,
    paths: Sequence[str],
    contents: Sequence[Any],
    names: Mapping[int, str] | None,
) -> ImageSet:
    objects = [_objects(each) for each in contents]
    boxes, labels = read_objects([each or () for each in objects], "json")
    if names is None:
        class_names = text_classes(
            labels,
            "json",
            'pass format="tar" and annotations=, a json file with COCO\'s categories',
        )
    else:
        class_names = list(names.values())
        labels = [_named(each, names, path) for each, path in zip(labels, paths, strict=True)]
    sizes = _sizes(contents, source, paths)
    require_format(
        boxes,
        "xywh",
        lambda row: sizes[row] if sizes[row].all() else image_size(root / paths[row]),
        "give them to hardmine.images_from in pixels, as {}",
    )
    ids = _ids(contents, paths)
    corners = to_xyxy(boxes, "xywh")
    images = image_set_of(
        root,
        paths,
        ids,
        sizes,
        corners,
        labels,
        class_names,
        str(source),
        crowd=_crowd(objects, [len(each) for each in boxes], paths),
    )
    missing = [path for path, each in zip(paths, objects, strict=True) if each is None]
    if not missing:
        return images
    return _with_note(
        images,
        source,
        f"{len(missing)} of {len(paths)} images, such as {missing[0]}, have no boxes in a json "
        "file beside them and count as images without objects",
    )


def _named(values: npt.NDArray[Any], names: Mapping[int, str], path: str) -> npt.NDArray[Any]:
    """Names of an image's categories, which may be names already."""
    unknown = [value for value in values.tolist() if isinstance(value, int) and value not in names]
    if unknown:
        raise InputError(f"{path}: the category {unknown[0]} is not among the categories' ids")
    return np.array([names.get(value, value) for value in values.tolist()])


def _crowd(
    objects: Sequence[Any], counts: Sequence[int], paths: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Which boxes are groups, as COCO's ``iscrowd`` says."""
    groups: list[bool] = []
    for each, count, path in zip(objects, counts, paths, strict=True):
        if isinstance(each, Mapping):
            found = each.get("iscrowd") or [0] * count
        else:
            found = [one.get("iscrowd", 0) for one in each or ()]
        if len(found) != count:
            raise InputError(f"{path}: has {count} boxes and {len(found)} values of iscrowd")
        groups += map(bool, found)
    return np.array(groups, bool)


def _sizes(contents: Sequence[Any], source: Path, paths: Sequence[str]) -> npt.NDArray[np.int32]:
    pairs = [
        (each.get("height") or 0, each.get("width") or 0) if isinstance(each, Mapping) else (0, 0)
        for each in contents
    ]
    return make_sizes(pairs, source, lambda row: paths[row])


def _ids(contents: Sequence[Any], paths: Sequence[str]) -> npt.NDArray[Any]:
    found = [each.get("image_id") if isinstance(each, Mapping) else None for each in contents]
    for kind in (int, str):
        if all(isinstance(each, kind) for each in found) and len(set(found)) == len(found):
            return np.array(found)
    return np.array(paths, str)


def _with_note(images: ImageSet, source: Path, note: str) -> ImageSet:
    _log.warning("%s: %s", source, note)
    return replace(images, notes=(*images.notes, note))

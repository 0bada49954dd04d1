"""Reads a Hugging Face image folder: images, and their objects in ``metadata.jsonl``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import yaml

from hardmine.datasets.folder import read_list
from hardmine.datasets.objects_column import (
    image_set_of,
    read_objects,
    require_format,
    text_classes,
    to_xyxy,
)
from hardmine.datasets.paths import inside, require_files
from hardmine.errors import InputError
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet

NAME = "metadata.jsonl"


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read the images that ``metadata.jsonl`` lists, and their boxes (x, y, width, height).

    Categories are texts, or numbers whose names stand in the ``dataset_info`` of ``README.md``.
    Ids are the paths.

    Args:
        source: The folder with ``metadata.jsonl``, or with a folder for each split; or the file.
        annotations: The file, if not inside ``source``.
        split: Name of the split's folder.
        check_files: Whether a missing image is an error.
    """
    file = annotations or (source if source.is_file() else _metadata(source, split))
    root = source if annotations and source.is_dir() else file.parent
    rows = [(line, _row(file, line, text)) for line, text in read_list(file)]
    seen = sorted({key for _, row in rows for key in row})
    if not rows or "file_name" not in seen or "objects" not in seen:
        raise InputError(
            f"{file}: expected 'file_name' and 'objects' in each line, got "
            f"{', '.join(seen) or 'no line'}; for images without labels pass format='folder'"
        )
    paths = [inside(str(row.get("file_name")), file, f"line {line}") for line, row in rows]
    repeated = len(paths) - len(set(paths))
    if repeated:
        raise InputError(f"{file}: {repeated} images are listed more than once")
    if check_files:
        require_files(root, paths, file, lambda row: f"line {rows[row][0]}")
    boxes, labels = read_objects([row.get("objects") for _, row in rows], "objects")
    require_format(
        boxes,
        "xywh",
        lambda row: image_size(root / paths[row]),
        "convert them, or read them with datasets and from_huggingface(..., box_format={!r})",
    )
    names = _declared_names(file.parent) or text_classes(
        labels, "objects", "write the categories as texts, or declare them in README.md"
    )
    sizes = np.zeros((len(paths), 2), np.int32)
    corners = to_xyxy(boxes, "xywh")
    return image_set_of(root, paths, np.array(paths, str), sizes, corners, labels, names, str(file))


def metadata_files(folder: Path) -> list[Path]:
    """``metadata.jsonl`` of a folder, or those of the folders in it."""
    if (folder / NAME).is_file():
        return [folder / NAME]
    return sorted(folder.glob(f"*/{NAME}")) or sorted(folder.glob(f"data/*/{NAME}"))


def _metadata(folder: Path, split: str | None) -> Path:
    found = metadata_files(folder)
    chosen = [file for file in found if file.parent.name == split] if split else found
    if len(chosen) != 1:
        names = ", ".join(file.relative_to(folder).as_posix() for file in found) or "none"
        raise InputError(
            f"{folder}: expected one {NAME}{f' of the split {split!r}' if split else ''}, found "
            f"{names}; pass split=, the name of its folder"
        )
    return chosen[0]


def _row(file: Path, line: int, text: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(text, type=dict[str, Any])
    except msgspec.MsgspecError as error:
        raise InputError(f"{file}: line {line}: {error}") from None


def _declared_names(folder: Path) -> list[str]:
    """Class names in the front matter of the README of a data set, as the Hub keeps them."""
    card = next((f / "README.md" for f in (folder, *folder.parents[:2]) if _is_card(f)), None)
    if card is None:
        return []
    try:
        front = yaml.safe_load(card.read_text(encoding="utf-8").split("---")[1])
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, IndexError, ValueError):
        return []
    return _names_in(front.get("dataset_info") if isinstance(front, dict) else None, depth=0)


def _is_card(folder: Path) -> bool:
    try:
        with (folder / "README.md").open("rb") as file:
            return file.read(3) == b"---"
    except OSError:
        return False


def _names_in(value: Any, depth: int) -> list[str]:
    """The names of the first ``class_label`` below a value; empty if there is none."""
    if depth > 12:
        return []
    if isinstance(value, dict) and isinstance(value.get("class_label"), dict):
        names = value["class_label"].get("names")
        if isinstance(names, dict):
            return [str(names[key]) for key in sorted(names, key=int)]
        return [str(name) for name in names or ()]
    below = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for each in below if (found := _names_in(each, depth + 1))), [])

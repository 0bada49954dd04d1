"""Which format lies at a place, told by what is there."""

from __future__ import annotations

import os
from pathlib import Path

from hardmine.datasets import coco, nuimages, yolo
from hardmine.datasets.paths import SUFFIXES
from hardmine.errors import InputError

_LOOKED_FOR = (
    "looked for a COCO json (in it or in annotations/), Annotations/*.xml with JPEGImages/ (VOC), "
    "data.yaml (YOLO), v1.0-*/object_ann.json (nuImages), image files (a plain folder)"
)


def detect_format(source: Path, annotations: Path | None) -> str:
    """Name of the format of a file or folder that is there.

    Raises:
        InputError: If it is none or more than one of those known.
    """
    labels = annotations or source
    if labels.is_file():
        by_suffix = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".txt": "list"}
        if labels.suffix.lower() in by_suffix:
            return by_suffix[labels.suffix.lower()]
        raise InputError(
            f"{labels}: cannot tell the format of a file that ends in {labels.suffix!r}; expected "
            "a .json (COCO, LVIS), a .yaml (YOLO) or a .txt (list of images); or pass format="
        )
    found = [name for name, is_there in _SIGNS.items() if is_there(labels)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{labels}: could be any of {', '.join(found)}; pass format= to say which")
    if annotations is None and _has_images(source):
        return "folder"
    there = sorted(path.name + "/" * path.is_dir() for path in labels.iterdir())
    shown = ", ".join(there[:8]) + (f" and {len(there) - 8} more" if len(there) > 8 else "")
    raise InputError(f"{labels}: no known format: {_LOOKED_FOR}; there is {shown or 'nothing'}")


def _has_images(folder: Path) -> bool:
    names = (name for _, _, names in os.walk(folder, followlinks=True) for name in names)
    return any(Path(name).suffix.lower() in SUFFIXES for name in names)


def _is_coco(folder: Path) -> bool:
    return bool(coco.annotation_files(folder))


def _is_voc(folder: Path) -> bool:
    return next(folder.glob("Annotations/*.xml"), next(folder.glob("*.xml"), None)) is not None


def _is_yolo(folder: Path) -> bool:
    return bool(yolo.data_files(folder))


def _is_nuimages(folder: Path) -> bool:
    return bool(nuimages.table_folders(folder))


_SIGNS = {"coco": _is_coco, "voc": _is_voc, "yolo": _is_yolo, "nuimages": _is_nuimages}

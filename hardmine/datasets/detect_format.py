"""Detects the format of a data set from its files."""

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
    """Name of the format of an existing file or folder.

    Raises:
        InputError: If no known format fits, or more than one.
    """
    labels = annotations or source
    if labels.is_file():
        by_suffix = {".json": "coco", ".yaml": "yolo", ".yml": "yolo", ".txt": "list"}
        if labels.suffix.lower() in by_suffix:
            return by_suffix[labels.suffix.lower()]
        raise InputError(
            f"{labels}: cannot detect the format of a file that ends in {labels.suffix!r}; "
            "expected .json (COCO, LVIS), .yaml (YOLO) or .txt (list of images); or pass format="
        )
    found = [name for name, matches in _DETECTORS.items() if matches(labels)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{labels}: matches several formats: {', '.join(found)}; pass format=")
    if annotations is None and _has_images(source):
        return "folder"
    names = sorted(path.name + "/" * path.is_dir() for path in labels.iterdir())
    shown = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
    raise InputError(f"{labels}: no known format: {_LOOKED_FOR}; found {shown or 'nothing'}")


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


_DETECTORS = {"coco": _is_coco, "voc": _is_voc, "yolo": _is_yolo, "nuimages": _is_nuimages}

"""Image sets: one reader a format, each returns an ``ImageSet``."""

from __future__ import annotations

import importlib
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.datasets.image import open_image
    from hardmine.records import ImageSet

__all__ = ["load_images", "open_image"]

# format: the module that reads it. LVIS is COCO with additions.
READERS = {
    "coco": "coco",
    "lvis": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "nuimages": "nuimages",
    "folder": "folder",
    "list": "folder",
}


def load_images(
    source: str | PathLike[str],
    format: str | None = None,
    *,
    annotations: str | PathLike[str] | None = None,
    split: str | None = None,
    check_files: bool = True,
) -> ImageSet:
    """Read a data set of any of the known formats.

    ============  ==========================================================================
    ``coco``      the image folder and ``annotations=`` the json; the json alone; or the data
                  set's folder, with ``split`` where it has several files
    ``lvis``      as coco
    ``voc``       a folder with ``Annotations`` and ``JPEGImages``; ``split`` is a list in
                  ``ImageSets/Main``
    ``yolo``      a ``data.yaml`` or its folder; ``split`` is ``"train"`` by default
    ``nuimages``  the folder that holds ``samples`` and ``v1.0-train``; ``split`` is ``"train"``
    ``folder``    any folder of images, no labels
    ``list``      a text file with one path a line, no labels
    ============  ==========================================================================

    Boxes are in pixels of the image as ``open_image`` gives it: upright, by its EXIF orientation.

    Args:
        source: A file or a folder, as above.
        format: One of the names above; recognised by what is there if not given.
        annotations: Where the labels are, if not below ``source``.
        split: Which part of the data set.
        check_files: Whether an image that is not there is an error. False loads the labels
            without looking at the images.

    Raises:
        InputError: If the format cannot be told, or a file is missing or broken; the message names
            the file and the entry.
    """
    from hardmine.datasets.detect_format import detect_format

    if format is not None and format not in READERS:
        raise InputError(f"format must be one of {', '.join(READERS)}, got {format!r}")
    place = Path(source)
    labels = None if annotations is None else Path(annotations)
    for path in (place, labels):
        if path is not None and not path.exists():
            raise InputError(f"{path}: no such file or folder")
    name = format or detect_format(place, labels)
    reader = importlib.import_module(f"hardmine.datasets.{READERS[name]}")
    images: ImageSet = reader.read(place, annotations=labels, split=split, check_files=check_files)
    if format == "lvis" and not images.federated:
        raise InputError(f"{source}: no image has neg_category_ids; is this COCO, not LVIS?")
    return images


def __getattr__(name: str) -> Any:
    # Pillow loads only where an image is opened.
    if name != "open_image":
        raise AttributeError(f"module 'hardmine.datasets' has no attribute {name!r}")
    return importlib.import_module("hardmine.datasets.image").open_image

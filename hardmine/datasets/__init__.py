"""Data set readers, one for each format; each returns an ``ImageSet``."""

from __future__ import annotations

import importlib
from os import PathLike
from typing import TYPE_CHECKING, Any

from hardmine.addresses import Address, as_path
from hardmine.errors import InputError

if TYPE_CHECKING:
    from hardmine.datasets.from_objects import images_from
    from hardmine.datasets.sources.fiftyone import from_fiftyone
    from hardmine.datasets.sources.huggingface import from_huggingface
    from hardmine.datasets.sources.supervision import from_supervision
    from hardmine.datasets.sources.torchvision import from_torchvision
    from hardmine.datasets.sources.ultralytics import from_ultralytics
    from hardmine.image_files.decode import open_image
    from hardmine.records import ImageSet

__all__ = [
    "from_fiftyone",
    "from_huggingface",
    "from_supervision",
    "from_torchvision",
    "from_ultralytics",
    "images_from",
    "load_images",
    "open_image",
]

# Loaded on first use: the readers need Pillow, msgspec and PyYAML.
_HOME = {
    "from_fiftyone": "hardmine.datasets.sources.fiftyone",
    "from_huggingface": "hardmine.datasets.sources.huggingface",
    "from_supervision": "hardmine.datasets.sources.supervision",
    "from_torchvision": "hardmine.datasets.sources.torchvision",
    "from_ultralytics": "hardmine.datasets.sources.ultralytics",
    "images_from": "hardmine.datasets.from_objects",
    "open_image": "hardmine.image_files.decode",
}

# Format -> module. LVIS is COCO with additional fields.
READERS = {
    "coco": "coco",
    "lvis": "coco",
    "voc": "voc",
    "yolo": "yolo",
    "nuimages": "nuimages",
    "datumaro": "datumaro",
    "imagefolder": "imagefolder",
    "parquet": "parquet",
    "arrow": "arrow",
    "tar": "tar",
    "folder": "folder",
    "list": "folder",
}
# Formats with a few large files of labels, or none; each label file is one request to the host.
_AT_ADDRESSES = ("coco", "lvis", "imagefolder", "parquet", "tar", "folder", "list")


def load_images(
    source: str | PathLike[str],
    format: str | None = None,
    *,
    annotations: str | PathLike[str] | None = None,
    split: str | None = None,
    check_files: bool = True,
) -> ImageSet:
    """Read a data set in a known format.

    ===============  =======================================================================
    ``coco``         the image folder, with the json file as ``annotations``; or the json file; or
                     the data set's folder (Roboflow's too), with ``split`` if it has several
    ``lvis``         like coco
    ``voc``          a folder with ``Annotations`` and ``JPEGImages``; ``split`` is the name of a
                     list in ``ImageSets/Main``
    ``yolo``         a ``data.yaml`` or its folder; ``split`` is ``"train"`` by default
    ``nuimages``     the folder of ``samples`` and ``v1.0-train``; ``split`` is, for example,
                     ``"train"``
    ``datumaro``     the folder of ``annotations`` and ``images``; ``split`` is the subset
    ``imagefolder``  Hugging Face: a folder with ``metadata.jsonl``; ``split`` is its folder's name
    ``parquet``      Hugging Face: a folder of ``train-00000-of-00002.parquet``; images stay inside
    ``arrow``        Hugging Face: a folder that ``dataset.save_to_disk`` wrote
    ``tar``          a tar file of images, or a folder of them (WebDataset), with labels in json
    ``folder``       any folder of images; no labels
    ``list``         a text file with one path in each line; no labels
    ===============  =======================================================================

    Boxes are in pixels of the image that ``open_image`` returns, with EXIF orientation applied.

    Source and annotations may be addresses, such as ``s3://bucket/train2017``, in the formats coco,
    lvis, imagefolder, parquet, tar, folder and list; the images stay there.

    Args:
        source: A file or a folder, as above.
        format: A name from the table; detected from the files if None.
        annotations: File or folder of the labels, if not inside ``source``.
        split: Part of the data set to read.
        check_files: Whether a missing image is an error. False loads the labels without checking
            that the images exist.

    Raises:
        InputError: If the format cannot be detected, or a file is missing or malformed. The
            message names the file and the entry.
        Unreachable: If the host of an address cannot be reached.
    """
    from hardmine.datasets.detect_format import detect_format

    if format is not None and format not in READERS:
        raise InputError(f"format must be one of {', '.join(READERS)}, got {format!r}")
    path = as_path(source)
    labels = None if annotations is None else as_path(annotations)
    for given in (path, labels):
        if isinstance(given, Address):
            given.list_anew()
        if given is not None and not given.exists():
            raise InputError(f"{given}: no such file or folder")
    name = format or detect_format(path, labels)
    if name not in _AT_ADDRESSES and isinstance(labels or path, Address):
        raise InputError(
            f"{labels or path}: {name} is read from folders of this machine only; an address may "
            f"hold {', '.join(_AT_ADDRESSES)}"
        )
    reader = importlib.import_module(f"hardmine.datasets.{READERS[name]}")
    images: ImageSet = reader.read(path, annotations=labels, split=split, check_files=check_files)
    if format == "lvis" and not images.federated:
        raise InputError(f"{source}: no image has neg_category_ids; is this COCO, not LVIS?")
    return images


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hardmine.datasets' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)

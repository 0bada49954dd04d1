"""Reads Pascal VOC: one XML file for each image."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from hardmine.datasets.folder import read_list
from hardmine.datasets.instances import make_instances, make_sizes
from hardmine.datasets.paths import SUFFIXES, inside, require_files
from hardmine.errors import InputError
from hardmine.image_files.decode import image_size
from hardmine.records import ImageSet

# Used if a set has no other classes, so that class rows do not depend on the split.
_VOC_CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


@dataclass(frozen=True)
class _Record:
    """The contents of one XML file: image name, (height, width), class names and boxes."""

    file: Path
    image: str
    size: tuple[float, float]
    names: list[str]
    boxes: list[tuple[float, float, float, float]]


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a folder of XML files.

    VOC counts pixels from 1 and includes the last pixel, so the box's edges are (xmin - 1,
    ymin - 1, xmax, ymax). Objects marked difficult are kept like any other. The image is the file
    with the XML file's stem, or else the one in ``filename``. Ids are the stems. Classes are sorted
    by name.

    Args:
        source: A folder with ``Annotations`` and ``JPEGImages``, or with images and XML files, or
            the image folder.
        annotations: The folder of XML files, if ``source`` is the image folder.
        split: Name of a list in ``ImageSets/Main``, e.g. ``"trainval"``; None reads every XML file.
        check_files: Whether a missing image is an error.
    """
    folder = annotations or source / "Annotations"
    if not folder.is_dir() and any(source.glob("*.xml")):
        folder = source  # Roboflow's: XML files beside the images
    if not folder.is_dir():
        raise InputError(
            f"{source}: expected a folder Annotations with XML files; if it is elsewhere, pass "
            "it as annotations="
        )
    root = source
    prefix = "JPEGImages/" if (source / "JPEGImages").is_dir() else ""
    records = [_read_xml(file) for file in _files(source, folder, split)]
    by_stem = _images_by_stem(root / prefix)
    # Check the file names even where the image is found by its stem.
    named = [inside(record.image, record.file, "filename") for record in records]
    paths = tuple(
        prefix + by_stem.get(record.file.stem, name)
        for record, name in zip(records, named, strict=True)
    )
    if check_files:
        require_files(root, paths, folder, lambda row: records[row].file.name)
    return _image_set(root, folder, records, paths)


def from_files(files: Sequence[Path], images: Sequence[Path]) -> ImageSet:
    """Make an image set of XML files and their images, in the order given."""
    root = Path(os.path.commonpath([image.parent for image in images]))
    paths = tuple(image.relative_to(root).as_posix() for image in images)
    return _image_set(root, files[0].parent, [_read_xml(file) for file in files], paths)


def _image_set(
    root: Path, folder: Path, records: list[_Record], paths: tuple[str, ...]
) -> ImageSet:
    measured = [
        record.size if all(record.size) else _measure(root / path)
        for record, path in zip(records, paths, strict=True)
    ]
    sizes = make_sizes(measured, folder, lambda row: records[row].file.name)
    found = {name for record in records for name in record.names}
    names = _VOC_CLASSES if found <= set(_VOC_CLASSES) else tuple(sorted(found))
    row_of = {name: row for row, name in enumerate(names)}
    counts = [len(record.names) for record in records]
    starts = np.concatenate([[0], np.cumsum(counts)])

    def entry(position: int) -> str:
        row = int(np.searchsorted(starts, position, side="right")) - 1
        return f"{records[row].file.name} object {position - starts[row]}"

    boxes = [box for record in records for box in record.boxes]
    instances, notes = make_instances(
        np.repeat(np.arange(len(records)), counts),
        np.array([row_of[name] for record in records for name in record.names], np.int32),
        np.array(boxes, np.float64).reshape(-1, 4),
        sizes,
        source=str(folder),
        entry=entry,
    )
    return ImageSet(
        root=root,
        ids=np.array([record.file.stem for record in records], str),
        paths=paths,
        sizes=sizes,
        class_names=names,
        class_ids=np.arange(len(names), dtype=np.int64),
        instances=instances,
        notes=notes,
    )


def _files(source: Path, folder: Path, split: str | None) -> list[Path]:
    if split is None:
        files = sorted(folder.glob("*.xml"))
        if not files:
            raise InputError(f"{folder}: no XML file")
        return files
    lists = source / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        splits = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:8]) or "none"
        raise InputError(f"{file}: no such split; found {splits}")
    files = []
    for line, text in read_list(file):
        # Lists for one class have "-1", "0" or "1" after the stem.
        stem = inside(text.split()[0], file, f"line {line}")
        files.append(folder / f"{stem}.xml")
        if not files[-1].is_file():
            raise InputError(f"{file}: line {line}: {files[-1]} is missing")
    return files


def _images_by_stem(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    found = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    return {path.stem: path.name for path in found}


def _measure(path: Path) -> tuple[int, int]:
    # Some tools write a size of 0. A broken image is reported when it is read.
    try:
        return image_size(path)
    except InputError:
        return (0, 0)


def _read_xml(file: Path) -> _Record:
    root = _parse(file)
    image = (root.findtext("filename") or f"{file.stem}.jpg").strip()
    size = tuple(_side(root.findtext(f"size/{side}")) for side in ("height", "width"))
    names, boxes = [], []
    for position, element in enumerate(root.findall("object")):
        name = (element.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: object {position} has no name")
        edges = [_edge(element, edge, file, position) for edge in ("xmin", "ymin", "xmax", "ymax")]
        names.append(name)
        boxes.append((edges[0] - 1, edges[1] - 1, edges[2], edges[3]))
    return _Record(file, image, (size[0], size[1]), names, boxes)


def _edge(element: Element, edge: str, file: Path, position: int) -> float:
    # Only the object's own box; the parts of a person have boxes as well.
    text = element.findtext(f"bndbox/{edge}")
    try:
        return float(text or "")
    except ValueError:
        raise InputError(
            f"{file}: object {position}: bndbox/{edge} must be a number, got {text!r}"
        ) from None


def _side(text: str | None) -> float:
    """Height or width of an image; 0 if it is not a number."""
    return float(text) if text and text.strip().isdecimal() else 0


def _parse(file: Path) -> Element:
    """Parse an XML file; refuse a document type (DTD): it allows entity bombs and file access."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise InputError(
            f"{file}: line {parser.CurrentLineNumber}: a document type is refused, since it can "
            "include other files and expand without limit; VOC files need none, remove it"
        )

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(f"{file}: malformed XML: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    return builder.close()

"""Pascal VOC: one XML file an image."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

import numpy as np

from hardmine.datasets.folder import read_list
from hardmine.datasets.image import image_size
from hardmine.datasets.instances import make_instances, make_sizes
from hardmine.datasets.paths import SUFFIXES, inside, require_files
from hardmine.errors import InputError
from hardmine.records import ImageSet

# Where a set has no other names, classes keep these rows whichever of them a split shows.
_VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)


@dataclass(frozen=True)
class _Page:
    """What one XML file says: the image's name, its height and width, names and boxes."""

    file: Path
    image: str
    size: tuple[float, float]
    names: list[str]
    boxes: list[tuple[float, float, float, float]]


def read(
    source: Path, *, annotations: Path | None, split: str | None, check_files: bool
) -> ImageSet:
    """Read a folder of XML files.

    The first pixel of VOC is 1 and its boxes hold their last pixel: (xmin - 1, ymin - 1, xmax,
    ymax) are the edges. Objects marked difficult are objects like any other. An image is the one
    with the XML's stem, else the one its ``filename`` names. Ids are the stems. Classes are in the
    order of their names.

    Args:
        source: A folder with ``Annotations`` and ``JPEGImages``, or the image folder.
        annotations: The folder of XML files, where ``source`` is the image folder.
        split: A list in ``ImageSets/Main``, e.g. ``"trainval"``; every XML file if not given.
        check_files: Whether a missing image is an error.
    """
    folder = annotations or source / "Annotations"
    if not folder.is_dir():
        raise InputError(
            f"{source}: expected a folder Annotations with XML files; is it elsewhere?"
        )
    root = source
    below = "JPEGImages/" if (source / "JPEGImages").is_dir() else ""
    pages = [_read_page(file) for file in _files(source, folder, split)]
    by_stem = _images_by_stem(root / below)
    # Chosen by what is there; a name is still checked if it is not needed.
    named = [inside(page.image, page.file, "filename") for page in pages]
    paths = tuple(
        below + by_stem.get(page.file.stem, name) for page, name in zip(pages, named, strict=True)
    )
    if check_files:
        require_files(root, paths, folder, lambda row: pages[row].file.name)
    sizes = [
        page.size if all(page.size) else _measure(root / path)
        for page, path in zip(pages, paths, strict=True)
    ]
    hw = make_sizes(sizes, folder, lambda row: pages[row].file.name)
    return _image_set(root, folder, pages, paths, hw)


def _files(source: Path, folder: Path, split: str | None) -> list[Path]:
    if split is None:
        files = sorted(folder.glob("*.xml"))
        if not files:
            raise InputError(f"{folder}: no XML file")
        return files
    lists = source / "ImageSets" / "Main"
    file = lists / f"{split}.txt"
    if not file.is_file():
        there = ", ".join(sorted(path.stem for path in lists.glob("*.txt"))[:8]) or "none"
        raise InputError(f"{file}: no such split; there is {there}")
    files = []
    for line, text in read_list(file):
        # The lists of one class have "-1", "0" or "1" after the stem.
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
    # Some tools write a size of 0; a broken image is found when it is read.
    try:
        return image_size(path)
    except InputError:
        return (0, 0)


def _image_set(
    root: Path, folder: Path, pages: list[_Page], paths: tuple[str, ...], sizes: Any
) -> ImageSet:
    found = {name for page in pages for name in page.names}
    names = _VOC if found <= set(_VOC) else tuple(sorted(found))
    place = {name: row for row, name in enumerate(names)}
    counts = [len(page.names) for page in pages]
    starts = np.concatenate([[0], np.cumsum(counts)])

    def entry(position: int) -> str:
        row = int(np.searchsorted(starts, position, side="right")) - 1
        return f"{pages[row].file.name} object {position - starts[row]}"

    boxes = [box for page in pages for box in page.boxes]
    instances, notes = make_instances(
        np.repeat(np.arange(len(pages)), counts),
        np.array([place[name] for page in pages for name in page.names], np.int32),
        np.array(boxes, np.float64).reshape(-1, 4),
        sizes,
        source=str(folder),
        entry=entry,
    )
    return ImageSet(
        root=root,
        ids=np.array([page.file.stem for page in pages], str),
        paths=paths,
        sizes=sizes,
        class_names=names,
        class_ids=np.arange(len(names), dtype=np.int64),
        instances=instances,
        notes=notes,
    )


def _read_page(file: Path) -> _Page:
    top = _parse(file)
    image = (top.findtext("filename") or f"{file.stem}.jpg").strip()
    size = tuple(_side(top.findtext(f"size/{side}")) for side in ("height", "width"))
    names, boxes = [], []
    for position, thing in enumerate(top.findall("object")):
        name = (thing.findtext("name") or "").strip()
        if not name:
            raise InputError(f"{file}: object {position} has no name")
        edges = [_edge(thing, edge, file, position) for edge in ("xmin", "ymin", "xmax", "ymax")]
        names.append(name)
        boxes.append((edges[0] - 1, edges[1] - 1, edges[2], edges[3]))
    return _Page(file, image, (size[0], size[1]), names, boxes)


def _edge(thing: Element, edge: str, file: Path, position: int) -> float:
    # Its own box: the parts of a person have boxes as well.
    text = thing.findtext(f"bndbox/{edge}")
    try:
        return float(text or "")
    except ValueError:
        raise InputError(
            f"{file}: object {position}: bndbox/{edge} must be a number, got {text!r}"
        ) from None


def _side(text: str | None) -> float:
    """A side of an image; 0 where it is not a number."""
    return float(text) if text and text.strip().isdecimal() else 0


def _parse(file: Path) -> Element:
    """The tree of an XML file; refuses a document type, where entity bombs and links live."""
    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data

    def refuse(*_: object) -> None:
        raise InputError(
            f"{file}: line {parser.CurrentLineNumber}: a document type is refused, since it can "
            "name other files and grow without bound; VOC files have none, remove it"
        )

    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(f"{file}: malformed XML: {error}") from None
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    return builder.close()

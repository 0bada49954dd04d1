"""Checks of a build's arguments, made before any work begins."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from hardmine.addresses import Address
from hardmine.clusters import parse_spec
from hardmine.errors import InputError
from hardmine.index.builder.proposals import Proposals
from hardmine.index.storage.image_table import FactColumns, ImageTable, check_path
from hardmine.index.storage.manifest import read_manifest
from hardmine.index.storage.read import read_images
from hardmine.records import ImageSet, rows_of

log = logging.getLogger(__name__)

_SAMPLE = 16  # images to try to read
_LOOKED_AT = 64  # files to compare with a finished index


def check_seed(seed: int) -> None:
    """Refuse a seed that does not fit into 64 bits."""
    if not -(2**63) <= seed < 2**63:
        raise InputError(f"seed must lie in -2**63 to 2**63 - 1, got {seed}")


def check_counts(**counts: int | None) -> None:
    """Refuse counts below 1; None is allowed."""
    for name, count in counts.items():
        if count is not None and count < 1:
            raise InputError(f"{name} must be at least 1, got {count}")


def check_proposals(clusters: str, proposals: Proposals | None) -> None:
    """Refuse the clustering "boxes" without boxes, and boxes with any other clustering."""
    if (parse_spec(clusters).method == "boxes") != (proposals is not None):
        raise InputError(
            f"clusters {clusters!r} {'needs' if proposals is None else 'takes no'} proposals: "
            "boxes by image id"
        )


def check_paths(images: ImageSet) -> None:
    """Refuse an image set with paths that lead out of its folder."""
    try:
        for path in images.paths:
            check_path(path)
    except ValueError as error:
        raise InputError(f"{error} ({images.root})") from None


def escape_names(images: ImageSet) -> ImageSet:
    r"""Write the bytes of names that are not UTF-8 as ``\udcXX``, as a table must be UTF-8.

    The fingerprint stays. No file has such a name, so the build lists the image as broken.
    """
    paths, ids = _escape(images.paths), images.ids.tolist()
    names = _escape(ids) if images.ids.dtype.kind == "U" else ids
    if paths == images.paths and names == ids:
        return images
    return replace(images, ids=np.array(names), paths=tuple(paths))


def _escape(names: Sequence[str]) -> Sequence[str]:
    """The same object if no name has a surrogate."""
    text = "\0".join(names)
    escaped = text.encode(errors="backslashreplace").decode()
    return names if escaped == text else escaped.split("\0")


def check_sizes(images: ImageSet, table: ImageTable) -> None:
    """Warn of images whose size in the labels is not that of the picture: boxes lie elsewhere."""
    labelled, found = images.sizes, table.sizes
    differ = np.flatnonzero((labelled > 0).all(1) & (found > 0).all(1) & (labelled != found).any(1))
    if len(differ) == 0:
        return
    turned = (labelled[differ] == found[differ, ::-1]).all(1)
    row = int(differ[0])
    (height, width), (own_height, own_width) = labelled[row].tolist(), found[row].tolist()
    log.warning(
        "%d of %d images have another size than the labels say (%s: %d x %d in the labels, %d x %d "
        "in the picture), so their boxes may lie elsewhere; %d of them are turned: their EXIF "
        "rotation is applied to the picture, but was not when they were labelled",
        len(differ),
        len(images),
        images.paths[row],
        width,
        height,
        own_width,
        own_height,
        int(turned.sum()),
    )


def check_lengths(images: ImageSet, folder: Path) -> None:
    """Warn if files of a sample are not as long as those that a finished index was built from.

    An index finds images by their names, so photos that were replaced since, or those of another
    folder with the same names, would be weighed by what their predecessors show.

    Args:
        images: All of them in the index, which may hold others too.
        folder: Of the index.
    """
    table = read_images(folder, read_manifest(folder))
    if not len(images) or not isinstance(table.facts, FactColumns):
        return
    sample = np.unique(np.linspace(0, len(images) - 1, _LOOKED_AT, dtype=int))
    indexed = rows_of(table.ids, images.ids[sample]).tolist()
    lengths = zip(sample.tolist(), table.facts.lengths(indexed), strict=True)
    found = [(row, then, _length(images, row)) for row, then in lengths]
    differ = [(row, then, now) for row, then, now in found if now is not None and 0 <= then != now]
    if differ:
        row, then, now = differ[0]
        log.warning(
            "%s: %d of the %d image files that were looked at have changed since it was built, "
            "such as %s (%d bytes then, %d now); bring it up to date with update_index (hardmine "
            "index update), or build another one if these are other images",
            folder,
            len(differ),
            len(sample),
            images.path(row),
            then,
            now,
        )


def _length(images: ImageSet, row: int) -> int | None:
    """Length of an image's file; None if it is none, or not on this machine."""
    if images.reader is not None or isinstance(images.root, Address):
        return None
    try:
        return images.path(row).stat().st_size
    except OSError:
        return None


def check_readable(images: ImageSet) -> None:
    """Refuse an image set if none of a sample of 16 images can be read."""
    if not len(images):
        raise InputError("there are no images to index")
    sample = np.unique(np.linspace(0, len(images) - 1, _SAMPLE, dtype=int)).tolist()
    problems = [_reading_problem(images, row) for row in sample]
    if all(problems):
        raise InputError(
            f"none of the {len(sample)} images that were tried can be read; the first problem: "
            f"{problems[0]}; are the images below {images.root}?"
        )


def _reading_problem(images: ImageSet, row: int) -> str:
    try:
        images.open(row)
    except InputError as error:
        return str(error)
    return ""

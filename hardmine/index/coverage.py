"""Says which images an index lacks, and refuses the index of another data set with the same ids."""

from __future__ import annotations

import logging

import numpy as np
import numpy.typing as npt

from hardmine.errors import IndexMismatch, InputError
from hardmine.index.base import Index
from hardmine.index.storage.columns import TextColumn
from hardmine.records import ImageSet, rows_of

log = logging.getLogger(__name__)

_EXPECTED = 0.05  # share of images that could not be read, at most
_COMPARED = 100  # images whose file names are compared, at most


def check_coverage(index: Index, ids: npt.ArrayLike, what: str) -> None:
    """Warn if an index lacks many of some images, as one of an earlier state of the data does.

    Args:
        index: Of the images.
        ids: (N,) image ids.
        what: Which images, for messages.

    Raises:
        InputError: If it lacks all of them.
    """
    rows = rows_of(index.ids, ids)
    missing = int((rows < 0).sum())
    if missing and missing == len(rows):
        raise InputError(
            f"none of the {len(rows)} {what} images is in their index; was it built on another "
            "split?"
        )
    if missing > _EXPECTED * len(rows):
        log.warning(
            "%d of %d %s images are not in the index, so no query finds them; bring it up to date "
            "with update_index (hardmine index update)",
            missing,
            len(rows),
            what,
        )


def require_same_files(index: Index, images: ImageSet | None) -> None:
    """Refuse an index of another data set with the same ids, which only the files' names tell.

    Args:
        index: Of the images, or of some of them, or of more.
        images: Those it is used with; None is none.

    Raises:
        IndexMismatch: If ``other_file`` finds one.
    """
    if images is not None and (other := other_file(index, images)) is not None:
        image_id, old, new = other
        raise IndexMismatch(
            f"the index has the same ids, but other files (id {image_id}: {old} in the index, "
            f"{new} in the labels): it was built from another data set; give the index of these "
            "images, or build one"
        )


def other_file(index: Index, images: ImageSet) -> tuple[int, str, str] | None:
    """An id under which an index has another file, where it has others under most shared ids.

    Most data sets number their images from 1, so numbers alone do not tell one set from another.
    Names of at most 100 files are compared, without their folders and suffixes: images may be
    moved, packed or converted. No file is looked at. Text ids tell by themselves; a name without a
    suffix is made up, as that of an image that is no file.

    Args:
        index: Of some images.
        images: Of these or of others.

    Returns:
        The id, the file's name in the index and the other one; None where they fit.
    """
    if "U" in (index.ids.dtype.kind, images.ids.dtype.kind):
        return None
    rows = index.rows_of(images.ids)
    shared = np.flatnonzero(rows >= 0)
    if len(shared) > _COMPARED:
        shared = shared[np.linspace(0, len(shared) - 1, _COMPARED).astype(np.int64)]
    names = [images.paths[row].rpartition("/")[2] for row in shared.tolist()]
    indexed = [path.rpartition("/")[2] for path in _paths(index, rows[shared])]
    pairs = [
        (image_id, old, new)
        for image_id, old, new in zip(images.ids[shared].tolist(), indexed, names, strict=True)
        if "." in old and "." in new
    ]
    others = [pair for pair in pairs if not _is_same(*pair)]
    return others[0] if 2 * len(others) > len(pairs) else None


def _paths(index: Index, rows: npt.NDArray[np.int64]) -> list[str]:
    """Paths of some images; the others are not kept in memory."""
    if isinstance(index.paths, TextColumn):
        return list(index.paths.take(rows))
    return [index.paths[row] for row in rows.tolist()]


def _is_same(image_id: int, old: str, new: str) -> bool:
    """Whether two names are of one image: COCO_val2014_000000000042.jpg is 000000000042.jpg."""
    short, long = sorted((old.rpartition(".")[0], new.rpartition(".")[0]), key=len)
    is_id = short.isdecimal() and int(short) == image_id
    return short.lower() == long.lower() or (is_id and long.endswith(f"_{short}"))

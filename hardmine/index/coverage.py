"""Says which images an index lacks: what is not indexed is neither found nor compared."""

from __future__ import annotations

import logging

import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.records import rows_of

log = logging.getLogger(__name__)

_EXPECTED = 0.05  # share of images that could not be read, at most


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

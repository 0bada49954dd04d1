"""Checks of a build's arguments, made before any work begins."""

from __future__ import annotations

import numpy as np

from hardmine.clusters import parse_spec
from hardmine.errors import InputError
from hardmine.index.builder.proposals import Proposals
from hardmine.index.storage.image_table import check_path
from hardmine.records import ImageSet

_SAMPLE = 16  # images to try to read


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

"""Boxes of any format into ``Instances``: one rule for what lies outside its image."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import Instances

_log = logging.getLogger(__name__)

# Annotation tools round; anything less is not worth a word.
_OVERRUN = 1.0


def make_instances(
    image_rows: npt.NDArray[Any],
    class_rows: npt.NDArray[Any],
    boxes: npt.NDArray[Any],
    sizes: npt.NDArray[np.int32],
    *,
    areas: npt.NDArray[Any] | None = None,
    crowd: npt.NDArray[np.bool_] | None = None,
    ids: npt.NDArray[np.int64] | None = None,
    source: str,
    entry: Callable[[int], str],
) -> tuple[Instances, tuple[str, ...]]:
    """Sort labelled boxes by image, clip them to it and leave out those that cover nothing.

    Real data sets hold some boxes of no width, some that run over the edge and some that miss
    their image. A box is clipped to its image; if nothing of it is left, or a coordinate is not
    finite, it is left out. Both are counted in a note. If that takes more than half of the boxes,
    the file says something else than it is read for, which is an error.

    Args:
        image_rows: (M,) row of each box's image, in any order.
        class_rows: (M,) row of its class.
        boxes: (M, 4) xyxy in pixels.
        sizes: (N, 2) height and width of the images; 0 where unknown: nothing to clip to.
        areas: (M,) areas from the file, NaN where it has none; the box's by default.
        crowd: (M,) group boxes; none by default.
        ids: (M,) the annotations' ids; their positions by default.
        source: The file or folder, for messages.
        entry: Name of the annotation at a position, for messages.

    Raises:
        InputError: If most boxes lie outside their images.
    """
    count = len(image_rows)
    boxes, whole = _clip(boxes, sizes[image_rows])
    with np.errstate(invalid="ignore"):
        extent = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        kept = (boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]) & np.isfinite(extent)
    lost = np.flatnonzero(~kept)
    if 2 * len(lost) > count and count > 1:
        raise InputError(
            f"{source}: {len(lost)} of {count} boxes are empty or lie outside their images, the "
            f"first is {entry(int(lost[0]))}; are the coordinates of this format (COCO: x, y, "
            "width, height in pixels; YOLO: centre and size as shares), and of images of this size?"
        )
    notes = []
    if len(lost):
        notes.append(
            f"left out {len(lost)} of {count} boxes that cover nothing of their image: "
            + _first(lost, entry)
        )
    clipped = np.flatnonzero(kept & ~whole)
    if len(clipped):
        notes.append(
            f"clipped {len(clipped)} of {count} boxes that ran over the edge of their image: "
            + _first(clipped, entry)
        )
    for note in notes:
        _log.warning("%s: %s", source, note)
    if areas is None:
        areas = extent
    else:
        areas = np.where(areas > 0, areas, extent)
    order = np.flatnonzero(kept)
    rows = image_rows[order]
    if len(rows) and (np.diff(rows) < 0).any():
        order = order[np.argsort(rows, kind="stable")]
    instances = Instances(
        image_rows[order].astype(np.int32, copy=False),
        class_rows[order].astype(np.int32, copy=False),
        boxes[order].astype(np.float32, copy=False),
        areas[order].astype(np.float32, copy=False),
        np.zeros(len(order), bool) if crowd is None else crowd[order],
        order.astype(np.int64, copy=False) if ids is None else ids[order],
    )
    return instances, tuple(notes)


def _clip(
    boxes: npt.NDArray[Any], sizes: npt.NDArray[np.int32]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """(M, 4) boxes cut to (M, 2) height and width, and (M,) which lay inside but for rounding."""
    limits = np.where(sizes > 0, sizes, np.inf).astype(boxes.dtype)[:, [1, 0, 1, 0]]
    clipped = boxes.clip(0, limits)
    clipped = np.where((limits < np.inf), clipped, boxes)
    with np.errstate(invalid="ignore"):
        return clipped, (np.abs(clipped - boxes) <= _OVERRUN).all(axis=1)


def _first(positions: npt.NDArray[Any], entry: Callable[[int], str]) -> str:
    """The first few entries by name."""
    named = ", ".join(entry(int(position)) for position in positions[:3])
    return named + (", ..." if len(positions) > 3 else "")

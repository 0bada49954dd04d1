"""Boxes of any format into ``Instances``: one rule for what lies outside its image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import Instances

_log = logging.getLogger(__name__)

# Annotation tools round; anything less is not worth a word.
_OVERRUN = 1.0
_SLICE = 1 << 18


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
        image_rows: (M,) row of each box's image, in any order; -1 leaves a box out unsaid.
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
    ours = image_rows >= 0
    count = int(ours.sum())
    boxes, extent, moved = _clip(boxes, sizes, image_rows)
    kept = ours & (extent > 0)
    lost = np.flatnonzero(ours & ~kept)
    if 2 * len(lost) > count > 1:
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
    clipped = np.flatnonzero(kept & (moved > _OVERRUN))
    if len(clipped):
        notes.append(
            f"clipped {len(clipped)} of {count} boxes that ran over the edge of their image: "
            + _first(clipped, entry)
        )
    for note in notes:
        _log.warning("%s: %s", source, note)
    order = np.flatnonzero(kept)
    rows = image_rows[order]
    if (np.diff(rows) < 0).any():
        order = order[np.argsort(rows, kind="stable")]
    if areas is None:
        areas = extent
    else:
        areas = np.where((areas > 0) & np.isfinite(areas), areas, extent)
    instances = Instances(
        image_rows[order].astype(np.int32, copy=False),
        class_rows[order].astype(np.int32, copy=False),
        boxes[order],
        areas[order].clip(0, np.finfo(np.float32).max).astype(np.float32, copy=False),
        np.zeros(len(order), bool) if crowd is None else crowd[order],
        order.astype(np.int64, copy=False) if ids is None else ids[order],
    )
    return instances, tuple(notes)


def make_sizes(
    sizes: Sequence[tuple[float, float]], source: object, entry: Callable[[int], str]
) -> npt.NDArray[np.int32]:
    """(N, 2) heights and widths, 0 where unknown.

    Raises:
        InputError: If one is negative or no size of any image.
    """
    found = np.array(sizes, np.float64).reshape(-1, 2)
    sound = ((found >= 0) & (found < 1 << 31)).all(axis=1)
    if not sound.all():
        row = int(np.argmin(sound))
        height, width = found[row].tolist()
        raise InputError(f"{source}: {entry(row)}: no image is {width:g} wide and {height:g} high")
    return found.astype(np.int32)


def _clip(
    boxes: npt.NDArray[Any], sizes: npt.NDArray[np.int32], image_rows: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Boxes cut to their images, what area is left, and how far the farthest edge was moved.

    A slice at a time: of ten million boxes each intermediate would be 160 MB.
    """
    count = len(boxes)
    cut = np.empty((count, 4), np.float32)
    extent, moved = np.empty(count, np.float32), np.empty(count, np.float32)
    for start in range(0, count, _SLICE):
        part = slice(start, start + _SLICE)
        limits = sizes[image_rows[part]][:, [1, 0, 1, 0]].astype(np.float64)
        limits[limits == 0] = np.inf  # size unknown
        inside = boxes[part].clip(np.where(limits < np.inf, 0, -np.inf), limits)
        with np.errstate(invalid="ignore", over="ignore"):
            width, height = (inside[:, 2:] - inside[:, :2]).T
            moved[part] = np.abs(inside - boxes[part]).max(axis=1)
            cut[part] = inside
            real = np.isfinite(boxes[part] + cut[part]).all(axis=1) & (width > 0) & (height > 0)
            extent[part] = np.where(real, width * height, 0)
    return cut, extent, moved


def _first(positions: npt.NDArray[Any], entry: Callable[[int], str]) -> str:
    """The first few entries by name."""
    named = ", ".join(entry(int(position)) for position in positions[:3])
    return named + (", ..." if len(positions) > 3 else "")

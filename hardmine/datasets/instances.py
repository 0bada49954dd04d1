"""Builds ``Instances`` from the boxes of any format; clips boxes to their images."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import Instances

_log = logging.getLogger(__name__)

# Pixels by which a box may exceed its image without a note: annotation tools round.
_ROUNDING = 1.0
_SLICE = 1 << 18  # boxes clipped at a time


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
    """Sort labelled boxes by image, clip them to it and drop those without area.

    Real data sets contain boxes without width, boxes that exceed their image and boxes outside it.
    A box is clipped to its image. It is dropped if no area is left or a coordinate is not finite.
    Notes count both. If more than half of the boxes are dropped, the file probably has another
    format, which is an error.

    Args:
        image_rows: (M,) row of each box's image, in any order; -1 drops a box without a note.
        class_rows: (M,) row of each box's class.
        boxes: (M, 4) xyxy in pixels.
        sizes: (N, 2) height and width of the images; 0 where unknown, then nothing is clipped.
        areas: (M,) areas from the file, NaN where it gives none; None uses the boxes' areas.
        crowd: (M,) bool, group boxes; None if there are none.
        ids: (M,) ids of the annotations; None uses their positions.
        source: File or folder, for messages.
        entry: Returns the name of the annotation at a position, for messages.

    Raises:
        InputError: If most boxes lie outside their images.
    """
    has_image = image_rows >= 0
    count = int(has_image.sum())
    boxes, extent, moved = _clip(boxes, sizes, image_rows)
    kept = has_image & (extent > 0)
    dropped = np.flatnonzero(has_image & ~kept)
    if 2 * len(dropped) > count > 1:
        raise InputError(
            f"{source}: {len(dropped)} of {count} boxes are empty or lie outside their images, the "
            f"first is {entry(int(dropped[0]))}; check the coordinates (COCO: x, y, width, height "
            "in pixels; YOLO: centre and size as shares of the image) and the image sizes"
        )
    notes = []
    if len(dropped):
        notes.append(
            f"left out {len(dropped)} of {count} boxes without area inside their image: "
            + _first(dropped, entry)
        )
    clipped = np.flatnonzero(kept & (moved > _ROUNDING))
    if len(clipped):
        notes.append(
            f"clipped {len(clipped)} of {count} boxes that exceeded their image: "
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
    """Check image sizes; (N, 2) heights and widths, 0 where unknown.

    Raises:
        InputError: If a size is negative, not finite or above 2^31.
    """
    found = np.array(sizes, np.float64).reshape(-1, 2)
    valid = ((found >= 0) & (found < 1 << 31)).all(axis=1)
    if not valid.all():
        row = int(np.argmin(valid))
        height, width = found[row].tolist()
        raise InputError(
            f"{source}: {entry(row)}: impossible image size, {width:g} wide and {height:g} high"
        )
    return found.astype(np.int32)


def _clip(
    boxes: npt.NDArray[Any], sizes: npt.NDArray[np.int32], image_rows: npt.NDArray[Any]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Clipped boxes, their areas, and the largest distance that an edge was moved.

    Works in slices: with ten million boxes each intermediate array would take 160 MB.
    """
    count = len(boxes)
    clipped = np.empty((count, 4), np.float32)
    extent, moved = np.empty(count, np.float32), np.empty(count, np.float32)
    for start in range(0, count, _SLICE):
        part = slice(start, start + _SLICE)
        limits = sizes[image_rows[part]][:, [1, 0, 1, 0]].astype(np.float64)
        limits[limits == 0] = np.inf  # size unknown
        inside = boxes[part].clip(np.where(limits < np.inf, 0, -np.inf), limits)
        with np.errstate(invalid="ignore", over="ignore"):
            width, height = (inside[:, 2:] - inside[:, :2]).T
            moved[part] = np.abs(inside - boxes[part]).max(axis=1)
            clipped[part] = inside
            valid = (
                np.isfinite(boxes[part] + clipped[part]).all(axis=1) & (width > 0) & (height > 0)
            )
            extent[part] = np.where(valid, width * height, 0)
    return clipped, extent, moved


def _first(positions: npt.NDArray[Any], entry: Callable[[int], str]) -> str:
    """Names of the first three entries."""
    named = ", ".join(entry(int(position)) for position in positions[:3])
    return named + (", ..." if len(positions) > 3 else "")

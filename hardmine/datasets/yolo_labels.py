"""Reads YOLO's label files: one box in each row, in shares of the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.datasets.folder import read_list
from hardmine.errors import InputError

# Corners and area are shares of the image's width, height and area; lines count from 1.
LABEL = np.dtype([("class_row", "i4"), ("xyxy", "f8", 4), ("area", "f8"), ("line", "i4")])


def label_path(image: Path) -> Path:
    """Path of an image's label file.

    >>> label_path(Path("set/images/train/a.jpg")).as_posix()
    'set/labels/train/a.txt'
    """
    parts = list(image.parts)
    for position in range(len(parts) - 2, -1, -1):
        if parts[position] == "images":
            parts[position] = "labels"
            break
    return Path(*parts).with_suffix(".txt")


def read_labels(file: Path, num_classes: int) -> npt.NDArray[Any] | None:
    """Rows of a label file, (n,) of ``LABEL``; None if the file does not exist.

    Raises:
        InputError: If a row has another form, or an unknown class.
    """
    if not file.is_file():
        return None
    rows = [_row(file, line, text.split(), num_classes) for line, text in read_list(file)]
    return np.array(rows, LABEL)


def _row(file: Path, line: int, words: list[str], num_classes: int) -> tuple[Any, ...]:
    if len(words) != 5 and (len(words) < 7 or len(words) % 2 == 0):
        raise InputError(
            f"{file}: line {line}: expected 'class x y w h' or 'class x1 y1 x2 y2 x3 y3 ...', "
            f"got {len(words)} numbers"
        )
    try:
        class_row, *numbers = map(float, words)
    except ValueError as error:
        raise InputError(f"{file}: line {line}: {error}") from None
    if class_row not in range(num_classes):
        raise InputError(
            f"{file}: line {line}: unknown class {words[0]}; expected 0 to {num_classes - 1}"
        )
    if len(numbers) == 4:
        x, y, width, height = numbers
        xyxy = (x - width / 2, y - height / 2, x + width / 2, y + height / 2)
        return int(class_row), xyxy, width * height, line
    xs, ys = np.array(numbers[::2]), np.array(numbers[1::2])
    with np.errstate(all="ignore"):  # boxes that are not finite are dropped later
        area = abs(xs @ np.roll(ys, -1) - ys @ np.roll(xs, -1)) / 2
    return int(class_row), (xs.min(), ys.min(), xs.max(), ys.max()), area, line

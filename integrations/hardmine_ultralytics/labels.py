"""Reads a built Ultralytics data set into hardmine's ``ImageSet``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from hardmine.datasets import from_ultralytics
from hardmine.records import ImageSet


def read_dataset(
    dataset: Any, names: Mapping[int, str], root: str | Path
) -> tuple[ImageSet, npt.NDArray[np.int64]]:
    """Read all images and boxes of a data set.

    Args:
        dataset: Of a loader, with ``labels``.
        names: Class names by number.
        root: Of the data yaml. Ids are the paths of the images from there, without a leading
            "..", as ``load_images`` reads them from the yaml: its indexes serve here, and those
            made here serve the command line.

    Returns:
        Each image file once with its labels, and the row of each position of the data set in it.
    """
    row_of_path: dict[str, int] = {}
    positions: list[int] = []
    labels: list[dict[str, Any]] = []
    ids: list[str] = []
    for label in dataset.labels:
        path = str(Path(label["im_file"]).resolve())
        row = row_of_path.setdefault(path, len(row_of_path))
        positions.append(row)
        if row == len(labels):
            shape = label.get("shape") or _stored_size(path)
            labels.append({**label, "im_file": path, "shape": shape})
            ids.append(re.sub(r"^(\.\./)+", "", os.path.relpath(label["im_file"], root)))
    images = from_ultralytics(labels, names)
    if len(set(ids)) == len(ids):
        images = replace(images, ids=np.array(ids))
    return images, np.array(positions)


def _stored_size(path: str) -> tuple[int, int]:
    """Height and width from the file; Ultralytics forgets them where batches have one shape."""
    with PIL.Image.open(path) as image:
        width, height = image.size
        turned = image.getexif().get(0x0112, 1) >= 5  # orientation: 5 to 8 lie on their side
    return (width, height) if turned else (height, width)

"""Detections: scored boxes on the images of a set, from COCO's results format."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.records import ImageSet, rows_of

_ENTRY = "every entry must have image_id, category_id, bbox (4 numbers) and score"


@dataclass(frozen=True)
class Detections:
    """D scored boxes of a detector on the images of a set.

    Attributes:
        image_rows: (D,) int64, rows of the image set.
        class_rows: (D,) int64, positions in its class names.
        boxes: (D, 4) float64 xyxy in pixels.
        scores: (D,) float64, higher = more confident.
    """

    image_rows: npt.NDArray[np.int64]
    class_rows: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: npt.NDArray[Any]) -> Detections:
        """Keep some, by mask or position."""
        return Detections(
            self.image_rows[chosen],
            self.class_rows[chosen],
            self.boxes[chosen],
            self.scores[chosen],
        )


def load_detections(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Detections, images: ImageSet
) -> Detections:
    """Read detections in COCO's results format: image_id, category_id, bbox (xywh) and score.

    Args:
        source: A .json file, its content, or ``Detections``, which are returned as they are.
        images: The image set that image_id and category_id refer to.

    Raises:
        InputError: If the file is not a list of results, an id is not in the image set, or a field
            is missing or not finite.
    """
    if isinstance(source, Detections):
        return source
    name = "detections"
    if isinstance(source, str | os.PathLike):
        name = str(source)
        rows = _read_results(Path(source))
    else:
        rows = list(source)
    try:
        image_ids = np.array([row["image_id"] for row in rows])
        given = np.array([row["category_id"] for row in rows])
        with np.errstate(invalid="ignore"):  # NaN is refused below
            class_ids = given.astype(np.int64)
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(len(rows), 4)
        scores = np.array([row["score"] for row in rows], np.float64)
    except KeyError as error:
        field = error.args[0]
        place = next(place for place, row in enumerate(rows) if field not in row)
        raise InputError(f"{name}: entry {place} has no {field}; {_ENTRY}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{name}: {_ENTRY}, got {error!r}") from None
    if given.dtype.kind == "f" and (given != class_ids).any():
        broken = int(np.flatnonzero(given != class_ids)[0])
        raise InputError(
            f"{name}: category_id must be a whole number, but entry {broken} has {given[broken]}"
        )
    finite = np.isfinite(np.column_stack([boxes, scores])).all(axis=1)
    if not finite.all():
        broken = int(np.flatnonzero(~finite)[0])
        raise InputError(
            f"{name}: bbox and score must be finite numbers, but entry {broken} has bbox "
            f"{boxes[broken].tolist()} and score {scores[broken]}; did the detector diverge?"
        )
    image_rows = images.rows_of(image_ids)
    class_rows = rows_of(images.class_ids, class_ids)
    if (image_rows < 0).any():
        unknown = np.unique(image_ids[image_rows < 0])
        raise InputError(
            f"{name}: {len(unknown)} image ids are not in the image set, the first "
            f"{unknown[0].item()!r}; was the detector run on other images?"
        )
    if (class_rows < 0).any():
        known = images.class_ids
        span = f" ({known.min()} to {known.max()})" if len(known) else ""
        raise InputError(
            f"{name}: category_id {class_ids[class_rows < 0].min()} is none of the {len(known)} "
            f"categories of the labels{span}; were the model's labels written in place of category "
            "ids?"
        )
    boxes[:, 2:] += boxes[:, :2]
    return Detections(image_rows, class_rows, boxes, scores)


def _read_results(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(f"no detections file at {path}; give a COCO results file (.json)")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as COCO results json: {error}") from error
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: expected a list of detections, got {type(rows).__name__}; "
            "is it an annotation file?"
        )
    return rows

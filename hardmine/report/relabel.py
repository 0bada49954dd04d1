"""Write suspected missing labels as CSV and as COCO proposals, for a labelling tool."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardmine.errors import InputError
from hardmine.report.mining_preview import MinedImage


def write_suspects(suspects: Sequence[MinedImage], folder: Path) -> tuple[Path, Path]:
    """Write ``suspects.csv`` and ``proposals.json``; a suspect is an image and a class.

    The box is the region that matched, in pixels. It shows where to look and is not a tight box of
    the object.
    """
    table, proposals = folder / "suspects.csv", folder / "proposals.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image_id", "path", "class", "score", "x", "y", "width", "height"])
            for one in suspects:
                score = round(one.score, 4)
                writer.writerow([one.image_id, one.path, one.class_name, score, *_xywh(one)])
        proposals.write_text(json.dumps(coco_proposals(suspects)), encoding="utf-8")
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}; choose another folder") from error
    return table, proposals


def coco_proposals(
    suspects: Sequence[MinedImage], class_ids: Mapping[str, int] | None = None
) -> dict[str, Any]:
    """Suspects as a COCO data set, which labelling tools open; ``score`` is the similarity.

    Args:
        suspects: What to write.
        class_ids: Category id by class name; numbered from 1 if None.
    """
    if class_ids is None:
        names = sorted({one.class_name for one in suspects})
        class_ids = {name: place for place, name in enumerate(names, 1)}
    images = {one.image_id: one for one in suspects}
    return {
        "info": {"description": "Suspected missing labels, to be checked by people."},
        "images": [
            {"id": image_id, "file_name": one.path, "height": one.size[0], "width": one.size[1]}
            for image_id, one in images.items()
        ],
        "categories": [{"id": number, "name": name} for name, number in class_ids.items()],
        "annotations": [
            {
                "id": number,
                "image_id": one.image_id,
                "category_id": class_ids[one.class_name],
                "bbox": (box := _xywh(one)),
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
                "score": round(one.score, 4),
            }
            for number, one in enumerate(suspects, 1)
        ],
    }


def _xywh(one: MinedImage) -> list[float]:
    height, width = one.size
    left, top, right, bottom = one.box
    return [
        round(left * width, 2),
        round(top * height, 2),
        round((right - left) * width, 2),
        round((bottom - top) * height, 2),
    ]

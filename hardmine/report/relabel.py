"""Write suspected missing labels as CSV, and in the format of a labelling tool."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from hardmine.errors import InputError
from hardmine.exports import FORMATS, MinedImage, write_export
from hardmine.exports.files import LOCAL_FILES


def write_suspects(
    suspects: Sequence[MinedImage],
    folder: Path,
    format: str = "coco",
    *,
    image_url: str = LOCAL_FILES,
) -> tuple[Path, Path]:
    """Write ``suspects.csv`` and a file for a labelling tool; a suspect is an image and a class.

    The box is the region that matched, in pixels. It shows where to look and is not a tight box of
    the object.

    Args:
        suspects: Images whose label is probably missing.
        folder: Where to write.
        format: One of ``exports.FORMATS``, which also names the file.
        image_url: As of ``write_export``.
    """
    table, proposals = folder / "suspects.csv", folder / FORMATS[format]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with table.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image_id", "path", "class", "score", "x", "y", "width", "height"])
            for one in suspects:
                left, top, right, bottom = one.pixels
                box = (left, top, round(right - left, 2), round(bottom - top, 2))
                writer.writerow([one.image_id, one.path, one.class_name, round(one.score, 4), *box])
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error}; choose another folder") from error
    write_export(suspects, format, proposals, image_url=image_url)
    return table, proposals

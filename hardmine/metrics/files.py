"""Reads per-class scores from the files that trainers and evaluators write."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hardmine.errors import InputError
from hardmine.metrics.mappings import flatten, has_class_scores

_NAME_COLUMNS = ("class", "class_name", "classname", "name", "category")
# As Ultralytics, Roboflow and YOLOv5 spell it. "precision" beside "recall" is no AP, and no tool
# is known to call one so.
_AP_COLUMNS = ("ap", "map50-95", "map50_95", "map@.5:.95", "map")


def read_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """Read a results file into a mapping for ``read_mapping``.

    A .json file has one mapping, or a list of rows with a class and an AP (Ultralytics' summary). A
    .jsonl file, like detectron2's metrics.json, has one mapping in each line; the last one with
    per-class values is read. A .csv file has a class column and an AP column.
    """
    file = Path(path)
    if not file.is_file():
        raise InputError(f"no metrics file at {file}")
    if file.suffix.lower() == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as opened:
            return read_rows([dict(row) for row in csv.DictReader(opened)], str(file))
    text = file.read_text(encoding="utf-8")
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        value = _last_scores(text, file)
    if isinstance(value, list):
        return read_rows(value, str(file))
    if not isinstance(value, Mapping):
        raise InputError(f"{file}: expected an object or a list, got {type(value).__name__}")
    return value


def read_rows(rows: Sequence[Any], source: str = "metrics") -> dict[str, Any]:
    """Turn rows with a class and an AP column into a mapping of class to AP.

    Args:
        rows: Mappings with the same keys, e.g. Ultralytics' ``summary()``.
        source: Name of the source, for error messages.
    """
    if not rows or not all(isinstance(row, Mapping) for row in rows):
        raise InputError(f"{source}: expected rows with a class and an AP, got none")
    columns = {str(key).strip().lower(): key for key in rows[0] if key is not None}
    name = next((columns[key] for key in _NAME_COLUMNS if key in columns), None)
    value = next((columns[key] for key in _AP_COLUMNS if key in columns), None)
    if name is None or value is None:
        raise InputError(
            f"{source}: needs a column of classes ({', '.join(_NAME_COLUMNS)}) and one of APs "
            f"({', '.join(_AP_COLUMNS)}), got {', '.join(map(str, columns.values()))}"
        )
    scores: dict[str, Any] = {}
    for row in rows:
        if row[name] in scores:
            raise InputError(f"{source}: class {row[name]!r} appears twice")
        cell = row.get(value)
        scores[row[name]] = None if isinstance(cell, str) and not cell.strip() else cell
    return scores


def _last_scores(text: str, file: Path) -> Mapping[str, Any]:
    lines = [line for line in text.splitlines() if line.strip()]
    for number, line in reversed(list(enumerate(lines, 1))):
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            # A killed run leaves an incomplete last line.
            if number == len(lines) and len(lines) > 1:
                continue
            raise InputError(f"{file}: line {number} is not JSON: {error}") from None
        if isinstance(value, Mapping) and has_class_scores(flatten(value)):
            return value
    raise InputError(f"{file}: none of its {len(lines)} lines has per-class values")

"""Reads per-class validation scores in the formats of trainers and evaluators."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

from hardmine.errors import InputError
from hardmine.metrics.evaluators import (
    has_torchmetrics,
    read_coco_eval,
    read_torchmetrics,
    read_ultralytics,
)
from hardmine.metrics.files import read_file, read_rows
from hardmine.metrics.mappings import flatten, read_mapping
from hardmine.records import ClassScores

__all__ = ["read_scores"]

_FORMATS = (
    "a mapping of class to AP; metrics of mmdet (classwise=True), detectron2, torchmetrics "
    "(class_metrics=True), transformers, RF-DETR or Ultralytics; a COCOeval; a list of rows with a "
    "class and an AP; a .json, .jsonl or .csv file"
)


def read_scores(
    metrics: Any,
    class_names: Sequence[str] | None = None,
    *,
    prefix: str | None = None,
    percent: bool = False,
    first_label: int | None = None,
) -> ClassScores:
    """Read the AP of each class from the metrics of a validation, in any known format.

    The format is detected from keys and types: ``coco/person_precision`` (mmdet),
    ``bbox/AP-person`` (detectron2, in percent), ``map_per_class`` and ``classes`` (torchmetrics),
    ``eval_map_person`` (transformers' detection example), ``val/AP/person`` (RF-DETR), an object
    or mapping with ``maps`` and ``names`` or the rows of its ``summary()`` (Ultralytics), an
    accumulated COCOeval, a file, or a mapping of class name to AP. NaN, None and -1 mean unknown,
    not zero.

    Args:
        metrics: Metrics in one of these formats; ClassScores are returned unchanged.
        class_names: Class names by number, for formats that have only numbers (torchmetrics). In a
            mapping they tell a class called "low_precision" from mmdet's key of a class "low".
        prefix: Group of keys to read if there are several, e.g. ``"coco"`` or ``"segm"``; None
            prefers boxes to masks.
        percent: Whether a plain mapping or a table is in percent.
        first_label: For torchmetrics, the label of the first class: 0, or 1 as in torchvision. None
            finds out, and refuses if the labels leave both possible.

    Raises:
        InputError: If there are no per-class values, or they are not valid APs.

    >>> read_scores({"coco/bbox_mAP": 0.3, "coco/cat_precision": 0.3, "coco/cow_precision": -1}).ap
    array([0.3, nan])
    """
    if isinstance(metrics, ClassScores):
        return metrics
    if isinstance(metrics, str | os.PathLike):
        metrics = read_file(metrics)
    elif isinstance(metrics, list):
        metrics = read_rows(metrics)
    if isinstance(metrics, Mapping):
        if has_torchmetrics(metrics):
            return read_torchmetrics(metrics, class_names, prefix=prefix, first_label=first_label)
        if "maps" in metrics and "names" in metrics:
            return read_ultralytics(metrics["maps"], metrics["names"])
        return read_mapping(flatten(metrics), class_names, prefix=prefix, percent=percent)
    if hasattr(metrics, "box") and hasattr(metrics, "names"):
        # Not metrics.maps, which is the sum of box and mask APs in segmentation models.
        instances = getattr(metrics, "nt_per_class", None)
        return read_ultralytics(metrics.box, metrics.names, instances)
    if hasattr(metrics, "cocoGt") and hasattr(metrics, "params"):
        return read_coco_eval(metrics)
    raise InputError(f"metrics must be {_FORMATS}; got {type(metrics).__name__}")

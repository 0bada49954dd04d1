"""Reads per-class scores from the objects of torchmetrics, Ultralytics and COCOeval."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.metrics.mappings import class_scores
from hardmine.records import SIZES, ClassScores

# Logged keys have a prefix (val/map_per_class); with two IoU types theirs is put before it.
_PER_CLASS = re.compile(r"^(?:(?P<log>.*)/)?(?:(?P<iou>bbox|segm)_)?map_per_class$", re.DOTALL)


def has_torchmetrics(metrics: Mapping[str, Any]) -> bool:
    """Whether a mapping is a result of MeanAveragePrecision, as it is or logged with a prefix."""
    return any(_PER_CLASS.match(str(key)) for key in metrics) or _is_empty(metrics)


def read_torchmetrics(
    metrics: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    *,
    prefix: str | None = None,
    first_label: int | None = None,
) -> ClassScores:
    """Read the result of MeanAveragePrecision(class_metrics=True).

    Args:
        metrics: The result, with ``map_per_class`` and ``classes``; -1 is unknown.
        class_names: Class names by number; the AP of a class without values is unknown.
        prefix: Which result to read, such as ``"segm"`` or ``"val"``; boxes if None.
        first_label: The label of the first class: 0, or 1 as in torchvision. None finds out from
            the labels, and refuses if they leave both possible.
    """
    if class_names is not None and _is_empty(metrics):
        return _by_position(class_names, np.full(len(class_names), -1.0), "torchmetrics")
    key = _choose_result(metrics, prefix)
    match = _PER_CLASS.match(key)
    assert match is not None
    classes_key = f"{match['log']}/classes" if match["log"] else "classes"
    if classes_key not in metrics:
        raise InputError(f"the metrics have {key!r} but not {classes_key!r}, its class numbers")
    numbers = np.atleast_1d(np.asarray(metrics[classes_key])).astype(np.int64).ravel()
    values = np.atleast_1d(np.asarray(metrics[key], np.float64))
    if len(values) != len(numbers) or (len(values) == 1 and values[0] == -1):
        raise InputError(
            "map_per_class has no per-class values; create the metric with "
            "MeanAveragePrecision(class_metrics=True)"
        )
    if class_names is None:
        raise InputError("torchmetrics has class numbers only; pass the names as class_names=")
    rows = numbers - _first_label(numbers, len(class_names), first_label)
    ap = np.full(len(class_names), -1.0)
    ap[rows] = values
    return _by_position(class_names, ap, "torchmetrics")


def _is_empty(metrics: Mapping[str, Any]) -> bool:
    """Whether nothing was labelled or detected: no class has a number, and none has an AP."""
    classes = [value for key, value in metrics.items() if str(key).split("/")[-1] == "classes"]
    return bool(classes) and all(np.asarray(value).size == 0 for value in classes)


def _choose_result(metrics: Mapping[str, Any], prefix: str | None) -> str:
    """The key of the per-class APs to read, where there are several."""
    keys = [str(key) for key in metrics if _PER_CLASS.match(str(key))]
    if prefix is not None:
        chosen = [
            key for key in keys if prefix in re.split(r"[/_]", key) or prefix in key.split("/")
        ]
    else:
        chosen = keys if len(keys) == 1 else [key for key in keys if "bbox_" in key]
    if len(chosen) != 1:
        raise InputError(
            f"the metrics have {', '.join(map(repr, keys))}; choose one with prefix=, "
            f"got {prefix!r}"
        )
    return chosen[0]


def _first_label(numbers: npt.NDArray[np.int64], num_classes: int, stated: int | None) -> int:
    """The label of the first class, as stated or as the labels show."""
    low, high = int(numbers.min()), int(numbers.max())
    possible = [first for first in (0, 1) if first <= low and high - first < num_classes]
    if stated is not None:
        if stated not in possible:
            raise InputError(
                f"torchmetrics has class numbers {low} to {high}, which do not fit {num_classes} "
                f"class_names counted from {stated}"
            )
        return stated
    if not possible:
        raise InputError(
            f"torchmetrics has class numbers {low} to {high}, "
            f"but there are {num_classes} class_names; labels must be positions in them"
        )
    if len(possible) > 1:
        raise InputError(
            f"torchmetrics has class numbers {low} to {high} of {num_classes} classes, which may "
            "count from 0 or, as in torchvision, from 1; pass first_label=0 or first_label=1"
        )
    return possible[0]


def read_ultralytics(
    boxes: Any, names: Mapping[int, str] | Sequence[str], num_instances: Any = None
) -> ClassScores:
    """Read the per-class mAPs of Ultralytics.

    Args:
        boxes: ``metrics.box``, or only its ``maps``. For classes without instances Ultralytics
            writes the mean of the others into ``maps``. Only ``metrics.box.ap_class_index`` tells
            which classes these are.
        names: Class names by number, i.e. ``metrics.names``.
        num_instances: ``metrics.nt_per_class``, if it exists.
    """
    maps = np.asarray(getattr(boxes, "maps", boxes), np.float64).ravel()
    if isinstance(names, Mapping):
        names = [names[number] for number in sorted(names)]
    if len(maps) != len(names):
        raise InputError(
            f"maps must have one value for each class ({len(names)} names), got {len(maps)}"
        )
    if hasattr(boxes, "ap_class_index"):
        evaluated = np.zeros(len(maps), bool)
        evaluated[np.asarray(boxes.ap_class_index, np.int64)] = True
        maps = np.where(evaluated, maps, np.nan)
    scores = _by_position(names, maps, "Ultralytics")
    if num_instances is None:
        return scores
    return replace(scores, num_instances=np.asarray(num_instances, np.int64))


def read_coco_eval(evaluation: Any) -> ClassScores:
    """Read a COCOeval (pycocotools or faster-coco-eval) after ``accumulate()``."""
    params = evaluation.params
    if not getattr(evaluation, "eval", None):
        raise InputError("this COCOeval has no results yet; call evaluate() and accumulate()")
    if not params.useCats:
        raise InputError("this COCOeval was run with useCats=0 and has no classes")
    precision = np.asarray(evaluation.eval["precision"], np.float64)  # (IoU, recall, C, area, dets)
    class_ids = list(params.catIds)
    precision = precision.reshape(len(params.iouThrs), -1, len(class_ids), *precision.shape[-2:])
    categories, row_of = evaluation.cocoGt.cats, {c: row for row, c in enumerate(class_ids)}
    areas = list(params.areaRngLbl)
    images = set(params.imgIds)
    counts = np.zeros(len(class_ids), np.int64)
    for annotation in evaluation.cocoGt.anns.values():
        crowd = annotation.get("iscrowd") or annotation.get("ignore")
        row = row_of.get(annotation["category_id"])
        if row is not None and not crowd and annotation["image_id"] in images:
            counts[row] += 1
    by_size = None
    if all(size in areas for size in SIZES):
        by_size = np.stack([_mean_ap(precision, areas.index(size)) for size in SIZES], axis=1)
    return ClassScores(
        tuple(categories[class_id]["name"] for class_id in class_ids),
        _mean_ap(precision, areas.index("all")),
        by_size,
        counts,
        "COCOeval",
    )


def _mean_ap(precision: npt.NDArray[np.float64], area: int) -> npt.NDArray[np.float64]:
    values = precision[:, :, :, area, -1]
    known = values > -1
    counts = known.sum(axis=(0, 1))
    total = np.where(known, values, 0).sum(axis=(0, 1))
    ap = np.full(len(counts), np.nan)
    np.divide(total, counts, out=ap, where=counts > 0)
    return ap


def _by_position(names: Sequence[str], ap: npt.NDArray[np.float64], source: str) -> ClassScores:
    if len(set(names)) != len(names):
        raise InputError(f"class names must be unique to read {source} metrics")
    return class_scores(dict(zip(names, ap.tolist(), strict=True)), source=source)

"""Reads per-class scores from the objects of torchmetrics, Ultralytics and COCOeval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.metrics.mappings import class_scores
from hardmine.records import SIZES, ClassScores


def read_torchmetrics(
    metrics: Mapping[str, Any], class_names: Sequence[str] | None = None
) -> ClassScores:
    """Read the result of MeanAveragePrecision(class_metrics=True).

    Args:
        metrics: The result, with ``map_per_class`` and ``classes``; -1 is unknown.
        class_names: Class names by number; the AP of a class without values is unknown.
    """
    numbers = np.atleast_1d(np.asarray(metrics["classes"])).astype(np.int64)
    values = np.atleast_1d(np.asarray(metrics["map_per_class"], np.float64))
    if len(values) != len(numbers) or (len(values) == 1 and values[0] == -1):
        raise InputError(
            "map_per_class has no per-class values; create the metric with "
            "MeanAveragePrecision(class_metrics=True)"
        )
    if class_names is None:
        raise InputError("torchmetrics has class numbers only; pass the names as class_names=")
    if numbers.max() >= len(class_names) or numbers.min() < 0:
        raise InputError(
            f"torchmetrics has class numbers {numbers.min()} to {numbers.max()}, "
            f"but there are {len(class_names)} class_names; labels must be positions in them"
        )
    ap = np.full(len(class_names), -1.0)
    ap[numbers] = values
    return _by_position(class_names, ap, "torchmetrics")


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

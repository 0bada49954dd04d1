"""Reads per-class scores from flat mappings of metric name to value."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from hardmine.errors import InputError
from hardmine.records import ClassScores

logger = logging.getLogger(__name__)

# detectron2's COCOEvaluator: bbox/AP-person, in percent, NaN where the class has no instances.
_DETECTRON2 = re.compile(r"^(?:(?P<prefix>.*?)/)?AP-(?P<name>.+)$", re.DOTALL)
# RF-DETR on Lightning: val/AP/person, a fraction.
_RFDETR = re.compile(r"^(?:(?P<prefix>.*?)/)?AP/(?P<name>.+)$", re.DOTALL)
# transformers' detection example: eval_map_person beside eval_map, eval_map_50, eval_map_small ...
_HF_BASE = re.compile(r"^(?:.*[/_])?map$", re.DOTALL)
_HF_AVERAGES = {"50", "75", "small", "medium", "large", "per_class"}
# mmdet's CocoMetric with classwise=True: coco/person_precision, NaN where there are no instances.
_MMDET_SUFFIX = "_precision"


def flatten(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Flatten nested mappings into one with ``outer/inner`` keys, as detectron2 logs them."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": deep for inner, deep in flatten(value).items()})
        else:
            flat[str(key)] = value
    return flat


def has_class_scores(metrics: Mapping[str, Any]) -> bool:
    """Whether a flat mapping has per-class keys of a trainer that names its metrics."""
    return bool(
        _matching(_DETECTRON2, metrics)
        or _matching(_RFDETR, metrics)
        or _hf_groups(metrics)
        or any(key.endswith(_MMDET_SUFFIX) for key in metrics)
    )


def read_mapping(
    metrics: Mapping[str, Any],
    class_names: Sequence[str] | None = None,
    *,
    prefix: str | None = None,
    percent: bool = False,
) -> ClassScores:
    """Read a flat mapping with the keys of a trainer, or with class names as keys.

    Args:
        metrics: Metric name -> value.
        class_names: Names that are classes as they stand, such as "low_precision"; None if unknown.
        prefix: Group of keys to read, if there are several.
        percent: Whether a plain mapping is in percent.
    """
    if not metrics:
        raise InputError(
            "metrics are empty, so no class has an AP "
            "(mmdet returns {} if the detector found nothing at all)"
        )
    classes = set(class_names or ())
    other = {key: value for key, value in metrics.items() if key not in classes}
    for source, groups, in_percent in (
        ("detectron2", _matching(_DETECTRON2, other), True),
        ("mmdet", _mmdet_groups(other), False),
        ("RF-DETR", _matching(_RFDETR, other), False),
        ("transformers", _hf_groups(other), False),
    ):
        if groups:
            group = _choose(groups, prefix)
            return class_scores(
                groups[group], percent=in_percent, source=f"{source} {group}".strip()
            )
    if any("mAP" in key.split("/")[-1] for key in metrics if "/" in key):
        raise InputError(
            f"metrics have only averages over classes ({', '.join(list(metrics)[:4])} ...); turn "
            "on per-class values: classwise=True of mmdet's CocoMetric, log_per_class_metrics=True "
            "of RF-DETR, class_metrics=True of torchmetrics"
        )
    scores = class_scores(metrics, percent=percent, source="mapping")
    if percent and 0 < np.nanmax(scores.ap, initial=0.0) <= 0.01:
        logger.warning(
            "no class has an AP above 1 %% where the metrics are read as percentages; if they are "
            "fractions, leave out percent=True (--percent)"
        )
    return scores


def class_scores(
    values: Mapping[str, Any], *, percent: bool = False, source: str = ""
) -> ClassScores:
    """Check the AP of each class and convert it to [0, 1]; None, NaN and -1 become NaN."""
    limit = 100.0 if percent else 1.0
    ap = np.full(len(values), np.nan)
    for row, (name, value) in enumerate(values.items()):
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise InputError(f"the AP of {name!r} must be a number, got {value!r}") from None
        if math.isnan(number) or number == -1:
            continue
        # A float32 mean may exceed 1 by rounding, about one part in a million.
        if not 0 <= number <= limit * (1 + 1e-6):
            hint = "; if these are percentages, give percent=True (in NeedRules), or --percent"
            hint = "" if percent or number < 0 else hint
            raise InputError(
                f"the AP of {name!r} must lie in 0 to {limit:g} (-1 or NaN if unknown), "
                f"got {number:g}{hint}"
            )
        ap[row] = min(number / limit, 1.0)
    return ClassScores(tuple(values), ap, source=source)


def _matching(pattern: re.Pattern[str], metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Values by prefix and class, of the keys that a pattern with both matches."""
    groups: dict[str, dict[str, Any]] = {}
    for key, value in metrics.items():
        match = pattern.match(key)
        if match:
            groups.setdefault(match["prefix"] or "", {})[match["name"]] = value
    return groups


def _hf_groups(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    groups: dict[str, dict[str, Any]] = {}
    for base in metrics:
        if not _HF_BASE.match(base):
            continue
        values = {
            key[len(base) + 1 :]: value
            for key, value in metrics.items()
            if key.startswith(f"{base}_") and key[len(base) + 1 :] not in _HF_AVERAGES
        }
        if values:
            groups[base.removesuffix("map").rstrip("/_")] = values
    return groups


def _mmdet_groups(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Mmdet's keys have a prefix, or there is nothing else but averages: a class may end so too."""
    keys = [key for key in metrics if key.endswith(_MMDET_SUFFIX)]
    alone = all(key in keys or "AP" in key for key in metrics)
    if not alone and not all("/" in key for key in keys):
        return {}
    return _by_prefix({key: metrics[key] for key in keys})


def _by_prefix(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split mmdet's keys into prefix and class; class names may contain slashes."""
    stems = {key: key[: -len(_MMDET_SUFFIX)] for key in metrics}
    first_parts = {stem.split("/")[0] if "/" in stem else "" for stem in stems.values()}
    if len(first_parts) == 1 and len(stems) > 1:
        # All keys start alike; the prefix may be longer, e.g. "val/coco/": all that they share.
        parts = [stem.split("/")[:-1] for stem in stems.values()]
        shared = 0
        while all(len(p) > shared and p[shared] == parts[0][shared] for p in parts):
            shared += 1
        lengths = dict.fromkeys(stems, shared)
    else:
        lengths = {key: int("/" in stem) for key, stem in stems.items()}
    groups: dict[str, dict[str, Any]] = {}
    for key, stem in stems.items():
        split = stem.split("/")
        group = "/".join(split[: lengths[key]])
        groups.setdefault(group, {})["/".join(split[lengths[key] :])] = metrics[key]
    return groups


def _choose(groups: Mapping[str, Any], prefix: str | None) -> str:
    parts_of = {group: group.split("/") for group in groups}
    if prefix is not None:
        chosen = [g for g, parts in parts_of.items() if g == prefix or prefix in parts]
    else:
        chosen = list(groups)
        if len(chosen) > 1:
            chosen = [group for group, parts in parts_of.items() if "bbox" in parts]
    if len(chosen) != 1:
        raise InputError(
            f"metrics have per-class values under {', '.join(map(repr, groups))}; "
            f"choose one with prefix=, got {prefix!r}"
        )
    return chosen[0]

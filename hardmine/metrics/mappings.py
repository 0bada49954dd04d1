"""Per-class scores out of flat mappings of text to number."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from hardmine.errors import InputError
from hardmine.records import ClassScores

# detectron2's COCOEvaluator: bbox/AP-person, in percent, NaN where the class has no instances.
_DETECTRON2 = re.compile(r"^(?:(?P<prefix>.*?)/)?AP-(?P<name>.+)$", re.DOTALL)
# mmdet's CocoMetric with classwise=True: coco/person_precision, NaN where there are no instances.
_MMDET_END = "_precision"


def flatten(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Turn nested mappings into one with ``outer/inner`` keys, as detectron2 logs them."""
    flat: dict[str, Any] = {}
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}/{inner}": deep for inner, deep in flatten(value).items()})
        else:
            flat[str(key)] = value
    return flat


def has_class_scores(metrics: Mapping[str, Any]) -> bool:
    """Whether a flat mapping holds detectron2's or mmdet's per-class keys."""
    return any(key.endswith(_MMDET_END) or _DETECTRON2.match(key) for key in metrics)


def read_mapping(
    metrics: Mapping[str, Any], *, prefix: str | None = None, percent: bool = False
) -> ClassScores:
    """Read a flat mapping: detectron2's keys, mmdet's, or plain class names.

    Args:
        metrics: Key to number.
        prefix: Group to read, where keys have several.
        percent: Whether a plain mapping is in percent.
    """
    if not metrics:
        raise InputError(
            "metrics are empty: nothing is known of any class "
            "(mmdet gives {} when the detector found nothing at all)"
        )
    groups: dict[str, dict[str, Any]] = {}
    for key, value in metrics.items():
        match = _DETECTRON2.match(key)
        if match:
            groups.setdefault(match["prefix"] or "", {})[match["name"]] = value
    if groups:
        group = _choose(groups, prefix)
        return class_scores(groups[group], percent=True, source=f"detectron2 {group}".strip())
    ended = [key for key in metrics if key.endswith(_MMDET_END)]
    if ended:
        groups = _by_prefix({key: metrics[key] for key in ended})
        group = _choose(groups, prefix)
        return class_scores(groups[group], source=f"mmdet {group}".strip())
    if any("mAP" in key.split("/")[-1] for key in metrics if "/" in key):
        raise InputError(
            f"metrics hold averages over classes alone ({', '.join(list(metrics)[:4])} ...); ask "
            "the evaluator for classes too: classwise=True in mmdet's CocoMetric"
        )
    return class_scores(metrics, percent=percent, source="mapping")


def class_scores(
    values: Mapping[str, Any], *, percent: bool = False, source: str = ""
) -> ClassScores:
    """Check numbers by class and turn them into shares; None, NaN and -1 become unknown."""
    limit = 100.0 if percent else 1.0
    ap = np.full(len(values), np.nan)
    for row, (name, value) in enumerate(values.items()):
        try:
            number = math.nan if value is None else float(value)
        except (TypeError, ValueError):
            raise InputError(f"the AP of {name!r} must be a number, got {value!r}") from None
        if math.isnan(number) or number == -1:
            continue
        # One part in a million is rounding of a float32 mean.
        if not 0 <= number <= limit * (1 + 1e-6):
            hint = "" if percent or number < 0 else "; if these are percentages, say percent=True"
            raise InputError(
                f"the AP of {name!r} must lie in 0 to {limit:g} (-1 or NaN if unknown), "
                f"got {number:g}{hint}"
            )
        ap[row] = min(number / limit, 1.0)
    return ClassScores(tuple(values), ap, source=source)


def _by_prefix(metrics: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Split mmdet's keys into prefix and class; class names may hold slashes themselves."""
    stems = {key: key[: -len(_MMDET_END)] for key in metrics}
    heads = {stem.split("/")[0] if "/" in stem else "" for stem in stems.values()}
    if len(heads) == 1 and len(stems) > 1:
        # All under one head: the prefix may be longer, "val/coco/"; what all share is no name.
        parts = [stem.split("/")[:-1] for stem in stems.values()]
        shared = 0
        while all(len(p) > shared and p[shared] == parts[0][shared] for p in parts):
            shared += 1
        lengths = dict.fromkeys(stems, shared)
    else:
        lengths = {key: int("/" in stem) for key, stem in stems.items()}
    groups: dict[str, dict[str, Any]] = {}
    for key, stem in stems.items():
        parts_of = stem.split("/")
        group = "/".join(parts_of[: lengths[key]])
        groups.setdefault(group, {})["/".join(parts_of[lengths[key] :])] = metrics[key]
    return groups


def _choose(groups: Mapping[str, Any], prefix: str | None) -> str:
    named = {group: group.split("/") for group in groups}
    if prefix is not None:
        chosen = [g for g, parts in named.items() if g == prefix or prefix in parts]
    else:
        chosen = list(groups)
        if len(chosen) > 1:
            chosen = [group for group, parts in named.items() if "bbox" in parts]
    if len(chosen) != 1:
        raise InputError(
            f"metrics hold per-class values under {', '.join(map(repr, groups))}; "
            f"say which with prefix=, got {prefix!r}"
        )
    return chosen[0]

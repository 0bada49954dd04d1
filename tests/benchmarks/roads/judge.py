"""AP as COCO has it: of each class, on all photos and on those of each condition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import (
    Detections,
    Matches,
    average_precision_from_matches,
    match_detections,
)
from hardmine.records import ImageSet, plain_values

MIN_PHOTOS = 20  # of an attribute's value, for it to be reported


def judge(
    images: ImageSet, found: Detections, attributes: Mapping[str, npt.NDArray[np.str_]]
) -> dict[str, Any]:
    """AP and AP50 of each class.

    Args:
        images: N labelled photos.
        found: Detections on them.
        attributes: (N,) values of each attribute.

    Returns:
        For "all" and each value of each attribute, as "timeofday=night": ``photos``, their number;
        ``ap`` and ``ap50``, C values from 0 to 100, None for classes without objects.
    """
    matches = match_detections(images, found)
    groups = {"all": np.ones(len(images), bool)}
    for name, values in attributes.items():
        for value in np.unique(values).tolist():
            if (values == value).sum() >= MIN_PHOTOS:
                groups[f"{name}={value}"] = values == value
    weights = np.stack(list(groups.values())).astype(np.float64)
    ap, ap50 = (
        100 * average_precision_from_matches(each, weights) for each in (matches, at_half(matches))
    )
    return {
        name: {
            "photos": int(weights[row].sum()),
            "ap": plain_values(ap[row].round(4)),
            "ap50": plain_values(ap50[row].round(4)),
        }
        for row, name in enumerate(groups)
    }


def at_half(matches: Matches) -> Matches:
    """The matches at an IoU of 0.5 alone."""
    assert matches.iou_thresholds[0] == 0.5
    return replace(
        matches,
        iou_thresholds=matches.iou_thresholds[:1],
        found=matches.found[:, :1],
        ignored=matches.ignored[:, :1],
    )

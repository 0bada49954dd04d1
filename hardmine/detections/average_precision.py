"""Average precision from matched detections, over weighted images and in bootstrap draws."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.detections import Matches
from hardmine.errors import InputError

_RECALLS = np.linspace(0.0, 1.0, 101)
_MAX_CELLS = 20_000_000  # floats of one intermediate array


def average_precision_from_matches(
    matches: Matches,
    image_weights: npt.ArrayLike | None = None,
    *,
    per_threshold: bool = False,
    classes: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """COCO's average precision by class: precision at 101 recalls, the mean over thresholds.

    A weight of k stands for an image that is in the set k times, so bootstrap draws are weights;
    0 leaves an image out.

    Args:
        matches: From ``match_detections``.
        image_weights: (N,), or (B, N) for B sets at once; each image once if None.
        per_threshold: Whether to keep the T thresholds apart.
        classes: Which class rows to compute; all if None.

    Returns:
        (C,) or (B, C) in [0, 1], NaN where a class has no objects; with ``per_threshold`` a last
        axis T more.
    """
    weights = np.ones(matches.num_images) if image_weights is None else image_weights
    drawn = np.atleast_2d(np.asarray(weights, np.float64))
    if drawn.shape[1] != matches.num_images:
        raise InputError(
            f"image_weights must have one value an image ({matches.num_images}), "
            f"got {drawn.shape[1]}"
        )
    chosen = np.arange(matches.num_classes) if classes is None else np.asarray(classes, np.int64)
    bounds = np.searchsorted(matches.detections.class_rows, np.stack([chosen, chosen + 1]))
    used = (drawn.max(axis=0, initial=0) > 0)[matches.detections.image_rows]
    ap = np.full((len(drawn), len(chosen), len(matches.iou_thresholds)), np.nan)
    for column, class_row in enumerate(chosen.tolist()):
        objects = matches.counted & (matches.instance_classes == class_row)
        if objects.any():
            first, last = bounds[:, column].tolist()
            rows = first + np.flatnonzero(used[first:last])
            step = max(1, _MAX_CELLS // max(1, len(rows), matches.num_images))
            for place in range(0, len(drawn), step):
                some = drawn[place : place + step]
                count = some[:, matches.instance_images[objects]].sum(axis=1)
                ap[place : place + step, column] = _class_ap(matches, rows, some, count)
    if not per_threshold:
        ap = ap.mean(axis=2)
    return ap if np.ndim(weights) == 2 else ap[0]


def bootstrap_weights(
    num_images: int, draws: int, rng: np.random.Generator, *, among: Any = None
) -> npt.NDArray[np.float64]:
    """Draw sets of images with replacement: (draws, N) how often each image is in each set.

    Args:
        num_images: N.
        draws: How many sets.
        rng: Where the randomness comes from.
        among: Rows of the images to draw from, as many as there are; all if None.
    """
    rows = np.arange(num_images) if among is None else np.asarray(among, np.int64)
    weights = np.zeros((draws, num_images))
    if len(rows):
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws)
    return weights


def _class_ap(
    matches: Matches,
    rows: npt.NDArray[np.int64],
    drawn: npt.NDArray[np.float64],
    count: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(B, T) APs of one class whose detections are ``rows``; ``count`` (B,) weighted objects."""
    weight = drawn[:, matches.detections.image_rows[rows]]
    found, ignored = matches.found[rows], matches.ignored[rows]
    ap = np.full((len(drawn), found.shape[1]), np.nan)
    some = count > 0
    ap[some] = 0.0
    every = None if ignored.any() else np.cumsum(weight, axis=1)
    for level in range(found.shape[1]):
        right = np.flatnonzero((found[:, level] >= 0) & ~ignored[:, level])
        if not len(right):
            continue
        seen = np.cumsum(weight * ~ignored[:, level], axis=1) if every is None else every
        hits = np.cumsum(weight[:, right], axis=1)
        precision = np.divide(hits, seen[:, right], out=np.zeros_like(hits), where=hits > 0)
        # Precision at a recall is the best precision at that recall or any higher one.
        best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
        recall = np.divide(hits, count[:, None], out=np.zeros_like(hits), where=some[:, None])
        # How many of the 101 recalls each hit is the first to reach.
        reached = np.searchsorted(_RECALLS, recall, side="right")
        steps = np.diff(reached, axis=1, prepend=0)
        ap[some, level] = ((steps * best).sum(axis=1) / len(_RECALLS))[some]
    return ap

"""Average precision of matched detections, also over bootstrap samples of the images."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.detections.matching import Matches
from hardmine.errors import InputError

_RECALLS = np.linspace(0.0, 1.0, 101)
_NEXT_RECALLS = np.append(_RECALLS[1:], np.inf)
_MAX_CELLS = 20_000_000  # floats in one intermediate array: 160 MB


def average_precision_from_matches(
    matches: Matches,
    image_weights: npt.ArrayLike | None = None,
    *,
    classes: npt.ArrayLike | None = None,
) -> npt.NDArray[np.float64]:
    """COCO's average precision of each class: precision at 101 recalls, mean over IoU thresholds.

    An image of weight k counts as k copies of it, so a bootstrap sample is a vector of weights.
    Weight 0 leaves an image out.

    Args:
        matches: From ``match_detections``.
        image_weights: (N,), or (B, N) for B samples at once; 1 for every image if None.
        classes: Which class rows to compute; all C if None.

    Returns:
        (C,) or (B, C) in [0, 1]; NaN where a class has no objects.
    """
    weights = np.ones(matches.num_images) if image_weights is None else image_weights
    samples = np.atleast_2d(np.asarray(weights, np.float64))
    if samples.shape[1] != matches.num_images:
        raise InputError(
            f"image_weights must have one value an image ({matches.num_images}), "
            f"got {samples.shape[1]}"
        )
    chosen = np.arange(matches.num_classes) if classes is None else np.asarray(classes, np.int64)
    bounds = np.searchsorted(matches.detections.class_rows, np.stack([chosen, chosen + 1]))
    used = (samples.max(axis=0, initial=0) > 0)[matches.detections.image_rows]
    by_image = np.ascontiguousarray(samples.T)
    ap = np.full((len(samples), len(chosen), len(matches.iou_thresholds)), np.nan)
    for column, class_row in enumerate(chosen.tolist()):
        objects = matches.counted & (matches.instance_classes == class_row)
        if objects.any():
            first, last = bounds[:, column].tolist()
            rows = first + np.flatnonzero(used[first:last])
            step = max(1, _MAX_CELLS // max(1, len(rows), matches.num_images))
            for start in range(0, len(samples), step):
                block = by_image[:, start : start + step]
                num_objects = block[matches.instance_images[objects]].sum(axis=0)
                ap[start : start + step, column] = _class_ap(matches, rows, block, num_objects)
    mean: npt.NDArray[np.float64] = ap.mean(axis=2)
    return mean if np.ndim(weights) == 2 else mean[0]


def bootstrap_weights(
    num_images: int,
    draws: int,
    rng: np.random.Generator,
    *,
    among: npt.NDArray[np.int64] | None = None,
) -> npt.NDArray[np.float64]:
    """Sample images with replacement: (draws, N), how often each image is in each sample.

    Args:
        num_images: N.
        draws: Number of samples.
        rng: Source of randomness.
        among: Rows of the images to sample from; each sample has as many images. All if None.
    """
    rows = np.arange(num_images) if among is None else among
    weights = np.zeros((draws, num_images))
    if len(rows):
        weights[:, rows] = rng.multinomial(len(rows), np.full(len(rows), 1 / len(rows)), draws)
    return weights


def _class_ap(
    matches: Matches,
    rows: npt.NDArray[np.int64],
    samples: npt.NDArray[np.float64],
    num_objects: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(B, T) AP of the class whose detections are ``rows``.

    Args:
        matches: Of N images.
        rows: In order of falling score.
        samples: (N, B) weights.
        num_objects: (B,) weighted number of the class's objects.
    """
    images = matches.detections.image_rows[rows]
    found, ignored = matches.found[rows], matches.ignored[rows]
    known = num_objects > 0
    ap = np.where(known[:, None], 0.0, np.full(found.shape[1], np.nan))
    true_anywhere = (found >= 0) & ~ignored
    places = np.flatnonzero(true_anywhere.any(axis=1))
    all_detections = None if ignored.any() else _count_up_to(places, images, samples)
    for level in range(found.shape[1]):
        own = np.flatnonzero(true_anywhere[places, level])
        if not len(own):
            continue
        if all_detections is None:
            counted = np.flatnonzero(~ignored[:, level])
            ends = np.searchsorted(counted, places[own])
            num_detections = _count_up_to(ends, images[counted], samples)
        else:
            num_detections = all_detections[own]
        num_true = np.cumsum(samples[images[places[own]]], axis=0)
        # Precision at a recall is the best precision at that recall or any higher one.
        best = num_true / num_detections.clip(min=1e-300)
        np.maximum.accumulate(best[::-1], axis=0, out=best[::-1])
        # Number of the 101 recalls that each true positive is the first to reach.
        num_true /= np.where(known, num_objects, 1.0)
        reached = _recalls_reached(num_true)
        reached[1:] -= reached[:-1].copy()
        ap[known, level] = np.einsum("ib,ib->b", reached, best)[known] / len(_RECALLS)
    return ap


def _count_up_to(
    ends: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    samples: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(E, B) weighted number of detections up to and including each of E places."""
    intervals = np.searchsorted(ends, np.arange(len(images)))
    inside = np.flatnonzero(intervals < len(ends))
    counts = scipy.sparse.csr_matrix(
        (np.ones(len(inside)), (intervals[inside], images[inside])), (len(ends), len(samples))
    )
    totals: npt.NDArray[np.float64] = counts @ samples
    return np.cumsum(totals, axis=0, out=totals)


def _recalls_reached(recall: npt.NDArray[np.float64]) -> npt.NDArray[np.int32]:
    """How many of the 101 recalls are at most so high, as ``searchsorted`` would find."""
    guess = (recall * 100).astype(np.int32)
    return guess + (recall >= _RECALLS[guess]) + (recall >= _NEXT_RECALLS[guess])

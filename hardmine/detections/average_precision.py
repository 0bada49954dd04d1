"""Average precision of matched detections, also over bootstrap samples of the images."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.detections.matching import Matches
from hardmine.errors import InputError

_RECALLS = np.linspace(0.0, 1.0, 101)
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
    wanted = np.zeros(matches.num_classes, bool)
    wanted[chosen] = True
    objects = np.flatnonzero(matches.counted & wanted[matches.instance_classes])
    by_class = scipy.sparse.coo_matrix(
        (
            np.ones(len(objects)),
            (matches.instance_classes[objects], matches.instance_images[objects]),
        ),
        (matches.num_classes, matches.num_images),
    ).tocsr()
    used = samples.max(axis=0, initial=0) > 0
    rows = np.flatnonzero(
        wanted[matches.detections.class_rows] & used[matches.detections.image_rows]
    )
    ap = np.zeros((len(samples), matches.num_classes))
    step = max(1, _MAX_CELLS // max(1, len(rows), matches.num_images))
    for start in range(0, len(samples), step):
        block = samples[start : start + step]
        num_objects = np.ascontiguousarray((by_class @ block.T).T)
        ap[start : start + step] = _ap_of_samples(matches, rows, block, num_objects)
    mean = ap[:, chosen]
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


def _ap_of_samples(
    matches: Matches,
    rows: npt.NDArray[np.int64],
    samples: npt.NDArray[np.float64],
    num_objects: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(B, C) AP of the detections ``rows``.

    Only places count: detections that are true at some IoU threshold, or ignored. All samples'
    places stand in one line, sample by sample and class by class, so that a sample costs no more
    than what lies in its images. A run is what one sample has of one class.

    Args:
        matches: Of N images.
        rows: In the order of the matches.
        samples: (B, N) weights.
        num_objects: (B, C) weighted number of objects.
    """
    images, labels = matches.detections.image_rows[rows], matches.detections.class_rows[rows]
    places = np.flatnonzero(matches.notable[rows])
    true, ignored = (
        np.ascontiguousarray(every[rows[places]].T) for every in (matches.correct, matches.ignored)
    )
    # 1. The line: its samples, places and weights, and where each run begins.
    drawn = (samples > 0)[:, images[places]]
    sample = np.repeat(np.arange(len(samples)), np.count_nonzero(drawn, axis=1))
    nth = np.flatnonzero(drawn) - sample * len(places)
    weights = samples[sample, images[places[nth]]]
    classes = num_objects.shape[1]
    run_of = sample * classes + labels[places[nth]]
    edges = np.searchsorted(run_of, np.arange(len(samples) * classes + 1))
    all_detections = _count_up_to(places, labels, images, samples)[nth, sample]
    ap = np.where(num_objects > 0, 0.0, np.nan).ravel()
    for level in range(len(true)):
        # 2. The true positives of this IoU threshold, and precision and recall at each.
        own = np.flatnonzero(true[level].take(nth))
        lengths = np.diff(np.searchsorted(own, edges))
        runs = np.flatnonzero(lengths)
        if not len(runs):
            continue
        lengths = lengths[runs]
        starts = np.cumsum(lengths) - lengths
        num_true = np.cumsum(weights.take(own))
        num_true -= np.repeat(num_true[starts] - weights[own[starts]], lengths)
        num_detections = all_detections.take(own)
        if ignored[level].any():
            left_out = np.append(0.0, np.cumsum(weights * ignored[level].take(nth)))
            num_detections -= left_out.take(own) - np.repeat(left_out[edges[runs]], lengths)
        precision = num_true / num_detections
        recall = num_true / np.repeat(num_objects.ravel()[runs], lengths)
        # 3. Precision at a recall is the best precision at that recall or any higher one. What is
        #    taken off grows from run to run, so that no later run's precision is better.
        taken_off = np.repeat(2.0 * np.arange(len(runs)), lengths)
        precision -= taken_off
        best = np.maximum.accumulate(precision[::-1])[::-1] + taken_off
        # 4. Number of the 101 recalls that each true positive is the first to reach.
        reached = np.searchsorted(_RECALLS, recall, "right")
        first = np.diff(reached, prepend=0)
        first[starts] = reached[starts]
        ap[runs] += np.add.reduceat(first * best, starts)
    return ap.reshape(num_objects.shape) / (len(_RECALLS) * len(true))


def _count_up_to(
    places: npt.NDArray[np.int64],
    labels: npt.NDArray[np.int64],
    images: npt.NDArray[np.int64],
    samples: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """(K, B) weighted number of a class's detections up to and including each of K places."""
    ends = np.zeros(len(labels) + 1, np.int64)
    ends[places + 1] = 1
    interval = np.cumsum(ends)[:-1]
    own = np.append(labels[places], -1)
    kept = np.flatnonzero(own[interval] == labels)
    pointers = np.searchsorted(interval[kept], np.arange(len(places) + 1))
    shape = (len(places), samples.shape[1])
    counts = scipy.sparse.csr_matrix((np.ones(len(kept)), images[kept], pointers), shape)
    totals: npt.NDArray[np.float64] = counts @ np.ascontiguousarray(samples.T)
    for first, last in pairwise(np.flatnonzero(np.diff(own, prepend=-1)).tolist()):
        np.cumsum(totals[first:last], axis=0, out=totals[first:last])
    return totals

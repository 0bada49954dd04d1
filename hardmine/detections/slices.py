"""AP inside against outside: on the images that answer a text, and on the rest.

Two statistics of the same split, since mining and reports need different answers:

- ``measure_slices``: how much AP does each class lose inside? Mining boosts by it. AP over few
  images comes out higher than over many, which would hide a loss, so both sides are compared at
  equal size, and the lower end of the interval counts.
- ``measure_mean_gap``: does the mean AP over classes differ, in either direction? A report tries
  many texts, so it needs a p-value, which can be corrected for the number of texts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.matching import Matches
from hardmine.errors import InputError

_Z_90 = 1.6449  # 90 % of a normal distribution lie within so many standard errors
_MIN_FOR_INTERVAL = 10  # instances of a class inside, and outside
_MIN_FOR_MEAN = 5  # likewise, for the class to count in a mean


@dataclass(frozen=True)
class Slice:
    """One class in one context, e.g. "person" × "at night".

    Attributes:
        class_name: The class.
        context: The context, as the user wrote it.
        num_images: Images that answer the context and show the class.
        num_instances: The class's instances in them.
        ap_inside: AP of the class on the images that answer; NaN where they show none of it.
        ap_outside: AP on the rest; NaN likewise.
        gap: How much lower AP is inside than in as many images outside; above 0 the context is
            harder. Without an interval it is ``ap_outside - ap_inside``.
        low: Lower end of the gap's bootstrap interval; NaN where there are too few instances.
        high: Upper end.
        need: In [0, 1], share of the AP outside that is lost inside at least: low / ap_outside.
            0 where the interval reaches 0 or is unknown.
    """

    class_name: str
    context: str
    num_images: int
    num_instances: int
    ap_inside: float
    ap_outside: float
    gap: float
    low: float
    high: float
    need: float


@dataclass(frozen=True)
class MeanGap:
    """Mean AP over classes on two sets of images; NaN where no class is frequent enough.

    Attributes:
        class_rows: The classes that the mean is over.
        ap_inside: Mean AP inside.
        ap_outside: Mean AP of the same classes outside.
        gap: ``ap_outside - ap_inside``; above 0 the inside is harder.
        low: Lower end of the gap's 90 % interval.
        high: Upper end.
        p: Two-sided p-value of the gap.
    """

    class_rows: tuple[int, ...] = ()
    ap_inside: float = math.nan
    ap_outside: float = math.nan
    gap: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = math.nan


def measure_slices(
    matches: Matches,
    answers: npt.NDArray[np.bool_],
    class_names: Sequence[str],
    contexts: Sequence[str],
    *,
    among: npt.NDArray[np.bool_] | None = None,
    draws: int = 1000,
    level: float = 0.9,
    seed: int = 0,
) -> list[Slice]:
    """Compare each class's AP on the images that answer a context with its AP on the rest.

    The bootstrap samples images with replacement, inside and outside apart, so the interval covers
    the chance of which images are in the set. Both samples have equal size, since AP over few
    images comes out higher than over many.

    Args:
        matches: Of a detector on N images.
        answers: (X, N) which images answer each context.
        class_names: C names.
        contexts: X names.
        among: (N,) images to use; all if None.
        draws: Bootstrap samples.
        level: Share of the samples inside the interval.
        seed: Seed of the bootstrap.

    Returns:
        A slice for each class and context with an instance inside, highest need first.
    """
    if answers.shape != (len(contexts), matches.num_images):
        raise InputError(
            f"answers must be one row a context and one column an image, "
            f"{(len(contexts), matches.num_images)}, got {answers.shape}"
        )
    used = np.ones(matches.num_images, bool) if among is None else among
    rng = np.random.default_rng(seed)
    slices: list[Slice] = []
    for context, answer in zip(contexts, answers, strict=True):
        slices += _context_slices(
            matches,
            (answer & used, ~answer & used),
            class_names,
            context,
            draws=draws,
            level=level,
            rng=rng,
        )
    return sorted(slices, key=lambda part: (-part.need, np.nan_to_num(-part.gap, nan=np.inf)))


def measure_mean_gap(
    matches: Matches,
    inside: npt.NDArray[np.bool_],
    outside: npt.NDArray[np.bool_],
    *,
    classes: npt.NDArray[np.int64] | None = None,
    draws: int = 200,
    rng: np.random.Generator,
) -> MeanGap:
    """Compare the mean AP over classes on two sets of images.

    The standard error comes from a bootstrap over the images of each side. Interval and p-value
    take the gap as normally distributed: percentiles of AP over few images are biased upwards.

    Args:
        matches: Of a detector on N images.
        inside: (N,) images of one side.
        outside: (N,) images of the other.
        classes: Rows of the classes to average over; all if None.
        draws: Bootstrap samples.
        rng: Source of randomness.
    """
    sides = (inside, outside)
    counts = np.stack([matches.count_objects(side) for side in sides])
    chosen = np.flatnonzero((counts >= _MIN_FOR_MEAN).all(axis=0))
    if classes is not None:
        chosen = np.intersect1d(chosen, classes)
    if not len(chosen):
        return MeanGap()
    means, samples = [], []
    for side in sides:
        ap = average_precision_from_matches(matches, side.astype(float), classes=chosen)
        means.append(float(ap.mean()))
        weights = _resample(side, int(side.sum()), draws, rng)
        ap = average_precision_from_matches(matches, weights, classes=chosen)
        samples.append(_mean_over_known(ap))
    gap = means[1] - means[0]
    # A sample without any of the classes has no gap.
    gaps = samples[1] - samples[0]
    gaps = gaps[~np.isnan(gaps)]
    error = float(np.std(gaps, ddof=1)) if len(gaps) >= max(2, draws // 2) else math.nan
    return MeanGap(
        class_rows=tuple(chosen.tolist()),
        ap_inside=means[0],
        ap_outside=means[1],
        gap=gap,
        low=gap - _Z_90 * error,
        high=gap + _Z_90 * error,
        p=math.erfc(abs(gap) / error / math.sqrt(2)) if error > 0 else math.nan,
    )


def _context_slices(
    matches: Matches,
    sides: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    class_names: Sequence[str],
    context: str,
    *,
    draws: int,
    level: float,
    rng: np.random.Generator,
) -> list[Slice]:
    inside, outside = (matches.count_objects(side) for side in sides)
    shown = np.flatnonzero(inside)
    enough = np.minimum(inside, outside)[shown] >= _MIN_FOR_INTERVAL
    size = min(int(side.sum()) for side in sides)
    measured, samples = [], []
    for side in sides:
        drawn = _resample(side, size, draws if enough.any() else 0, rng)
        ap = average_precision_from_matches(matches, np.vstack([side, drawn]), classes=shown)
        measured.append(ap[0])
        samples.append(ap[1:, enough])
    gap = measured[1] - measured[0]
    low, high = np.full((2, len(shown)), np.nan)
    if enough.any():
        gaps = samples[1] - samples[0]
        tails = ((1 - level) / 2, (1 + level) / 2)
        low[enough], high[enough] = np.nanquantile(gaps, tails, axis=0)
        gap[enough] = np.nanmean(gaps, axis=0)
    counted = matches.counted & sides[0][matches.instance_images]
    pairs = np.stack([matches.instance_classes, matches.instance_images])[:, counted]
    num_images = np.bincount(np.unique(pairs, axis=1)[0], minlength=len(class_names))
    slices = []
    for place, row in enumerate(shown.tolist()):
        ap_inside, ap_outside = measured[0][place].item(), measured[1][place].item()
        lost = low[place] / ap_outside if low[place] > 0 and ap_outside > 0 else 0.0
        slices.append(
            Slice(
                class_name=class_names[row],
                context=context,
                num_images=int(num_images[row]),
                num_instances=int(inside[row]),
                ap_inside=ap_inside,
                ap_outside=ap_outside,
                gap=float(gap[place]),
                low=float(low[place]),
                high=float(high[place]),
                need=float(min(lost, 1.0)),
            )
        )
    return slices


def _resample(
    side: npt.NDArray[np.bool_], size: int, draws: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """(draws, N) bootstrap samples of ``size`` images; each picks so many of the side first."""
    rows = np.flatnonzero(side)
    if len(rows) == size:
        return bootstrap_weights(len(side), draws, rng, among=rows)
    samples = np.zeros((draws, len(side)))
    for sample in samples:
        chosen = rng.choice(rows, size, replace=False)
        sample[:] = bootstrap_weights(len(side), 1, rng, among=chosen)
    return samples


def _mean_over_known(ap: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(B,) mean of each row over its known values; NaN where none is known."""
    known = ~np.isnan(ap)
    count = known.sum(axis=1)
    total = np.where(known, ap, 0.0).sum(axis=1)
    means: npt.NDArray[np.float64] = np.divide(
        total, count, out=np.full(len(ap), np.nan), where=count > 0
    )
    return means

"""Need by slice: how much weaker a class is on the images that answer a context."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.detections import Matches, match_detections
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.records import ImageSet


@dataclass(frozen=True)
class Slice:
    """One class in one context, e.g. "person" × "at night".

    Attributes:
        class_name: The class.
        class_row: Its position among the class names.
        context: The context, as the user wrote it.
        num_images: Images that answer the context and show the class.
        num_instances: The class's instances in them.
        ap_inside: AP of the class on the images that answer; NaN where they show none of it.
        ap_outside: AP on the rest; NaN likewise.
        gap: How much lower AP is inside than in as many images outside; above 0 the context is
            the harder part. Without an interval ``ap_outside - ap_inside``.
        low: Lower end of the gap's bootstrap interval; NaN where there are too few instances.
        high: Upper end.
        need: In [0, 1], the share of the AP outside that is surely lost inside: low / ap_outside,
            0 where the interval reaches 0 or is unknown.
    """

    class_name: str
    class_row: int
    context: str
    num_images: int
    num_instances: int
    ap_inside: float
    ap_outside: float
    gap: float
    low: float
    high: float
    need: float


def slice_need(
    images: ImageSet,
    detections: Any,
    index: Index,
    contexts: Sequence[str],
    vectors: npt.ArrayLike,
    *,
    against: npt.ArrayLike | None = None,
    share: float | None = 0.2,
    threshold: float | None = None,
    draws: int = 1000,
    level: float = 0.9,
    min_instances: int = 10,
    seed: int = 0,
) -> list[Slice]:
    """Measure every class × context on the validation images, the neediest first.

    Args:
        images: N validation images with labels.
        detections: What the detector found on them: COCO results, as ``load_detections`` reads.
        index: Holds the validation images; those it lacks are left out.
        contexts: X names, e.g. "at night".
        vectors: (X, D) text vectors of the contexts.
        against: (X, D) text vectors of their opposites, e.g. "by day"; an image then answers by
            how much more it resembles the context. Worth giving: similarity alone depends on much
            else.
        share: Share of the images that answer each context, those of the highest scores.
        threshold: Smallest score that answers, instead of a share.
        draws: Bootstrap draws.
        level: Share of the draws inside the interval.
        min_instances: Fewest instances inside and outside for an interval.
        seed: Fixes the draws.
    """
    rows = index.rows_of(images.ids)
    present = rows >= 0
    if not present.any():
        raise InputError(
            f"the index holds none of the {len(images)} validation images; build one of them"
        )
    scores = np.full((len(contexts), len(images)), -np.inf)
    scores[:, present] = index.scores(vectors)[:, rows[present]]
    if against is not None:
        scores[:, present] -= index.scores(against)[:, rows[present]]
    answers = answering(scores, share=share, threshold=threshold)
    return measure_slices(
        match_detections(images, detections),
        answers,
        images.class_names,
        contexts,
        among=present,
        draws=draws,
        level=level,
        min_instances=min_instances,
        seed=seed,
    )


def answering(
    scores: npt.NDArray[np.floating], *, share: float | None = 0.2, threshold: float | None = None
) -> npt.NDArray[np.bool_]:
    """Say which images answer each query: the best share of them, or all above a threshold.

    Args:
        scores: (X, N), higher = more alike; -inf never answers.
        share: Of the images with a score; None with a threshold.
        threshold: Smallest score that answers; overrules the share.

    Returns:
        (X, N) bool. Images that tie with the last of the share all answer.

    >>> answering(np.array([[0.3, 0.1, 0.2, 0.0]]), share=0.5)
    array([[ True, False,  True, False]])
    """
    finite: npt.NDArray[np.bool_] = np.isfinite(scores)
    if threshold is not None:
        return np.logical_and(finite, scores >= threshold)
    if share is None or not 0 < share < 1:
        raise InputError(f"share must be in (0, 1), or a threshold given, got {share}")
    answers = np.zeros(scores.shape, bool)
    for row, known in enumerate(finite):
        ranked = np.sort(scores[row, known])
        if len(ranked):
            last = ranked[-max(1, round(share * len(ranked)))]
            answers[row] = known & (scores[row] >= last)
    return answers


def measure_slices(
    matches: Matches,
    answers: npt.NDArray[np.bool_],
    class_names: Sequence[str],
    contexts: Sequence[str],
    *,
    among: npt.NDArray[np.bool_] | None = None,
    draws: int = 1000,
    level: float = 0.9,
    min_instances: int = 10,
    seed: int = 0,
) -> list[Slice]:
    """Compare each class's AP on the images that answer a context with the rest.

    Images are drawn with replacement, inside and outside apart, so the interval tells how far the
    gap could come from which images happen to be in the set. AP over few images comes out higher
    than over many, so each draw compares sets of equal size.

    Args:
        matches: Of the detector on N images.
        answers: (X, N) which images answer each context.
        class_names: C names.
        contexts: X names.
        among: (N,) images to look at; all if None.
        draws: Bootstrap draws.
        level: Share of the draws inside the interval.
        min_instances: Fewest instances inside and outside for an interval.
        seed: Fixes the draws.

    Returns:
        A slice for each class × context with an instance inside, the neediest first.
    """
    if answers.shape != (len(contexts), matches.num_images):
        raise InputError(
            f"answers must be one row a context and one column an image, "
            f"{(len(contexts), matches.num_images)}, got {answers.shape}"
        )
    looked_at = np.ones(matches.num_images, bool) if among is None else among
    rng = np.random.default_rng(seed)
    slices: list[Slice] = []
    for context, answer in zip(contexts, answers, strict=True):
        slices += _context_slices(
            matches,
            (answer & looked_at, ~answer & looked_at),
            class_names,
            context,
            draws=draws,
            level=level,
            min_instances=min_instances,
            rng=rng,
        )
    return sorted(slices, key=lambda part: (-part.need, np.nan_to_num(-part.gap, nan=np.inf)))


def _context_slices(
    matches: Matches,
    sides: tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]],
    class_names: Sequence[str],
    context: str,
    *,
    draws: int,
    level: float,
    min_instances: int,
    rng: np.random.Generator,
) -> list[Slice]:
    inside, outside = (_instances(matches, side) for side in sides)
    shown = np.flatnonzero(inside)
    enough = shown[(inside[shown] >= min_instances) & (outside[shown] >= min_instances)]
    measured = np.stack(
        [average_precision_from_matches(matches, side.astype(float)) for side in sides]
    )
    low, high = np.full((2, len(class_names)), np.nan)
    gap = measured[1] - measured[0]
    if len(enough):
        size = min(int(side.sum()) for side in sides)
        drawn = [
            average_precision_from_matches(
                matches, _draw(np.flatnonzero(side), size, len(side), draws, rng), classes=enough
            )
            for side in sides
        ]
        gaps = drawn[1] - drawn[0]
        tails = ((1 - level) / 2, (1 + level) / 2)
        low[enough], high[enough] = np.nanquantile(gaps, tails, axis=0)
        gap[enough] = np.nanmean(gaps, axis=0)
    counted = matches.counted & sides[0][matches.instance_images]
    pairs = np.stack([matches.instance_classes, matches.instance_images])[:, counted]
    num_images = np.bincount(np.unique(pairs, axis=1)[0], minlength=len(class_names))
    slices = []
    for row in shown.tolist():
        ap_inside, ap_outside = measured[:, row].tolist()
        sure = low[row] / ap_outside if low[row] > 0 and ap_outside > 0 else 0.0
        slices.append(
            Slice(
                class_name=class_names[row],
                class_row=row,
                context=context,
                num_images=int(num_images[row]),
                num_instances=int(inside[row]),
                ap_inside=ap_inside,
                ap_outside=ap_outside,
                gap=float(gap[row]),
                low=float(low[row]),
                high=float(high[row]),
                need=float(min(sure, 1.0)),
            )
        )
    return slices


def _draw(
    rows: npt.NDArray[np.int64], size: int, num_images: int, draws: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Bootstrap sets of ``size`` images, each from its own choice of as many of the rows."""
    if len(rows) == size:
        return bootstrap_weights(num_images, draws, rng, among=rows)
    return np.concatenate(
        [
            bootstrap_weights(num_images, 1, rng, among=rng.choice(rows, size, replace=False))
            for _ in range(draws)
        ]
    )


def _instances(matches: Matches, side: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    chosen = matches.counted & side[matches.instance_images]
    return np.bincount(matches.instance_classes[chosen], minlength=matches.num_classes)

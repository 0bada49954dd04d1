"""Which class is weak under which condition, measured where validation images answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from hardmine.detections.slices import Slice, answering, slice_need
from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.mining.queries import embed_queries, fill
from hardmine.records import ImageSet

Floats = npt.NDArray[np.float64]
PLAIN = ("photo",)  # what a context is compared with, so that an image answers by what it adds

ANSWERING_SHARE = 0.2  # of the validation images, the likeliest, surely answer
_LEVEL, _DEVIATIONS = 0.9, 1.645  # of the intervals: a share, and half its width in errors
_LEAST_LOSS = 0.05  # of AP, worth asking for
_LEAST_ERROR = 1e-3  # of an AP over a finite set, whatever the bootstrap says


@dataclass(frozen=True)
class ContextNeed:
    """What the validation images say of contexts.

    Attributes:
        need: Of each (class, context), in [0, 1].
        answers: For each context how much more alike to it than to a plain photo an image must
            be to answer it, half way between the validation images that surely do and the rest;
            and which share of them that is. Training images are held against the same value, so
            that a context which training seldom shows is not watered down.
    """

    need: dict[tuple[str, str], float] = field(default_factory=dict)
    answers: dict[str, tuple[float, float]] = field(default_factory=dict)


def context_phrases(context: str) -> tuple[str, ...]:
    """What a context alone is asked as, to be compared with ``PLAIN``.

    >>> context_phrases("at night")
    ('photo at night',)
    """
    return (fill(context, PLAIN[0]),)


def measure_contexts(
    images: ImageSet,
    detections: Any,
    index: Index,
    contexts: Sequence[str],
    encoder: Encoder,
    *,
    draws: int = 200,
) -> ContextNeed:
    """Measure how weak classes are where a context holds.

    Few validation images show a class under a context; all classes together tell more. So what
    is measured of a class is drawn towards what all have in common, the further the less sure it
    is and the more alike the classes are; see ``shares_lost``.

    Args:
        images: Validation images with labels.
        detections: What the detector found on them, in COCO's results format.
        index: Holds the validation images.
        contexts: Such as ``"at night"`` or ``"a wet {}"``.
        encoder: The one that made the index.
        draws: Of the bootstrap behind the intervals.
    """
    asked, plain = (
        embed_queries(encoder, texts, templates=["{}"])
        for texts in ([context_phrases(text) for text in contexts], [PLAIN] * len(contexts))
    )
    slices = slice_need(
        images,
        detections,
        index,
        contexts,
        asked,
        against=plain,
        share=ANSWERING_SHARE,
        draws=draws,
        level=_LEVEL,
    )
    need: dict[tuple[str, str], float] = {}
    for context in contexts:
        told = {part.class_name: part for part in slices if part.context == context}
        told = {name: part for name, part in told.items() if not np.isnan(part.low)}
        if told:
            need |= _need_under(context, images.class_names, told)
    return ContextNeed(need, _boundaries(images, index, asked, plain, contexts))


def _need_under(
    context: str, class_names: Sequence[str], told: Mapping[str, Slice]
) -> dict[tuple[str, str], float]:
    """Need of every class under a context; of those that were not told by the others alone."""
    gaps, errors, outside = np.zeros((3, len(class_names)))
    errors += np.inf
    outside += np.mean([part.ap_outside for part in told.values()])
    for row, name in enumerate(class_names):
        if name in told:
            part = told[name]
            gaps[row], outside[row] = part.gap, part.ap_outside
            errors[row] = (part.high - part.low) / (2 * _DEVIATIONS)
    lost = shares_lost(gaps, errors, outside)
    return {
        (name, context): value
        for name, value in zip(class_names, lost.clip(0, 1).tolist(), strict=True)
    }


def shares_lost(gaps: Floats, errors: Floats, outside: Floats) -> Floats:
    """Share of its AP that each of k classes loses, drawn towards what all of them lose.

    1. all together lose the share r = Σ gap / Σ AP
    2. a class's gap scatters around r · AP with a variance t that is what the measured gaps
       scatter beyond their own errors; its estimate is (t · gap + error² · r · AP) / (t + error²)
    3. a loss counts by how sure it is one, times 2 P(loss > 0) - 1; less than a twentieth is none

    Args:
        gaps: (k,) how much lower AP is inside.
        errors: (k,) their standard errors; infinite where nothing was measured.
        outside: (k,) AP outside.

    >>> errors = np.array([0.05, 0.05, np.inf])
    >>> shares_lost(np.array([0.1, 0.2, 0.0]), errors, np.full(3, 0.5)).round(2)
    array([0.3, 0.3, 0.3])
    """
    known = np.isfinite(errors)
    own = np.where(known, errors, 0.0).clip(min=_LEAST_ERROR) ** 2
    total = max(float(outside[known].sum()), _LEAST_ERROR)
    common = gaps[known].sum() / total * outside
    common_variance = own[known].sum() / total**2 * outside**2
    scatter = (gaps - common)[known] ** 2 - own[known]
    between = max(0.0, float(scatter.sum()) / max(1, int(known.sum()) - 1))
    pull = np.where(known, own / (own + between), 1.0)
    estimate = (1 - pull) * gaps + pull * common
    variance = pull * between + pull**2 * common_variance
    # A class of AP 0 everywhere has nothing to lose, and is sure of it.
    sure = erf(estimate / np.sqrt(2 * variance).clip(min=1e-12))
    lost = estimate.clip(min=0) * sure / outside.clip(min=_LEAST_ERROR)
    return np.where(lost >= _LEAST_LOSS, lost, 0.0)


def _boundaries(
    images: ImageSet,
    index: Index,
    asked: npt.NDArray[np.float32],
    plain: npt.NDArray[np.float32],
    contexts: Sequence[str],
) -> dict[str, tuple[float, float]]:
    rows = index.rows_of(images.ids)
    added = (index.scores(asked) - index.scores(plain))[:, rows[rows >= 0]]
    likely = answering(added, share=ANSWERING_SHARE)
    boundaries = {}
    for context, values, chosen in zip(contexts, added, likely, strict=True):
        rest = values[~chosen] if not chosen.all() else values
        least = (float(values[chosen].mean()) + float(rest.mean())) / 2
        boundaries[context] = (least, float((values >= least).mean()))
    return boundaries

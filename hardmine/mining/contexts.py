"""Which class is weak in which context, measured on the validation images that answer it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from scipy.special import erf

from hardmine.detections import Matches, Slice, answering, measure_slices, similarity_to_texts
from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.mining.queries import embed_queries, fill
from hardmine.records import ImageSet

Floats = npt.NDArray[np.float64]

# A context is compared with this phrase, so that an image answers by what the context adds.
PLAIN = ("photo",)
ANSWERING_SHARE = 0.2  # of the validation images: those that answer a context for certain
_LEVEL, _DEVIATIONS = 0.9, 1.645  # bootstrap intervals: their share, half their width in errors
_DRAWS = 100  # of a bootstrap
_MIN_LOSS = 0.05  # share of AP that must be lost before a context is searched for
_MIN_ERROR = 1e-3  # of an AP over a finite set, whatever the bootstrap says


@dataclass(frozen=True)
class ContextNeed:
    """What the validation images show about contexts.

    Attributes:
        need: Of each (class, context), in [0, 1].
        thresholds: For each context, the similarity to it minus that to a plain photo from which an
            image answers. Training images are compared with the same value, so that a context that
            training rarely shows keeps its meaning.
    """

    need: dict[tuple[str, str], float] = field(default_factory=dict)
    thresholds: dict[str, float] = field(default_factory=dict)


def context_phrases(context: str) -> tuple[str, ...]:
    """The phrase for a context alone, to be compared with ``PLAIN``.

    >>> context_phrases("at night")
    ('photo at night',)
    """
    return (fill(context, PLAIN[0]),)


def measure_contexts(
    images: ImageSet,
    matches: Matches,
    index: Index,
    contexts: Sequence[str],
    encoder: Encoder,
) -> ContextNeed:
    """Measure how weak each class is in each context.

    Few validation images show a given class in a given context, so a single measurement is noisy.
    Each is pulled towards the mean of all classes, the more so the less certain it is and the more
    alike the classes are; see ``shares_lost``.

    Args:
        images: Validation images with labels.
        matches: Of the detector on them.
        index: Holds the validation images; those it lacks, or has no regions of, are left out.
        contexts: Such as ``"at night"`` or ``"a wet {}"``.
        encoder: The one that made the index.
    """
    vectors, plain = (
        embed_queries(encoder, texts, templates=["{}"])
        for texts in ([context_phrases(text) for text in contexts], [PLAIN] * len(contexts))
    )
    added = similarity_to_texts(images, index, vectors, against=plain)
    present = np.asarray(np.isfinite(added).all(axis=0))
    slices = measure_slices(
        matches,
        answering(added, share=ANSWERING_SHARE),
        images.class_names,
        contexts,
        among=present,
        draws=_DRAWS,
        level=_LEVEL,
    )
    need: dict[tuple[str, str], float] = {}
    for context in contexts:
        measured = {
            part.class_name: part
            for part in slices
            if part.context == context and not np.isnan(part.low)
        }
        if measured:
            need |= _need_in_context(context, images.class_names, measured)
    thresholds = (answer_threshold(values[present]) for values in added)
    return ContextNeed(need, dict(zip(contexts, thresholds, strict=True)))


def answer_threshold(values: npt.NDArray[np.floating]) -> float:
    """Where an answer begins: half way between what answers for certain and the mean of the rest.

    Args:
        values: (N,) similarity to a context minus similarity to a plain photo.

    >>> answer_threshold(np.array([0.9, 0.1, 0.1, 0.1, 0.1]))
    0.5
    """
    certain = answering(values[None], share=ANSWERING_SHARE)[0]
    rest = values[~certain] if not certain.all() else values
    return (float(values[certain].mean()) + float(rest.mean())) / 2


def _need_in_context(
    context: str, class_names: Sequence[str], measured: Mapping[str, Slice]
) -> dict[tuple[str, str], float]:
    """Need of every class in a context; of those that were not measured, by the others alone."""
    gaps, errors, outside = np.zeros((3, len(class_names)))
    errors += np.inf
    outside += np.mean([part.ap_outside for part in measured.values()])
    for row, name in enumerate(class_names):
        if name in measured:
            part = measured[name]
            gaps[row], outside[row] = part.gap, part.ap_outside
            errors[row] = (part.high - part.low) / (2 * _DEVIATIONS)
    lost = shares_lost(gaps, errors, outside)
    return {
        (name, context): value
        for name, value in zip(class_names, lost.clip(0, 1).tolist(), strict=True)
    }


def shares_lost(gaps: Floats, errors: Floats, outside: Floats) -> Floats:
    """Share of its AP that each of k classes loses, pulled towards what all of them lose.

    1. all together lose the share r = Σ gap / Σ AP
    2. a class's true gap varies around r · AP with variance t: the variance of the measured gaps
       beyond their own errors. Its estimate is (t · gap + error² · r · AP) / (t + error²)
    3. a loss is multiplied by its certainty, 2 P(loss > 0) - 1; below 5 % it counts as none

    Args:
        gaps: (k,) how much lower AP is inside.
        errors: (k,) their standard errors; infinite where nothing was measured.
        outside: (k,) AP outside.

    >>> errors = np.array([0.05, 0.05, np.inf])
    >>> shares_lost(np.array([0.1, 0.2, 0.0]), errors, np.full(3, 0.5)).round(2)
    array([0.3, 0.3, 0.3])
    """
    known = np.isfinite(errors)
    own = np.where(known, errors, 0.0).clip(min=_MIN_ERROR) ** 2
    total = max(float(outside[known].sum()), _MIN_ERROR)
    common = gaps[known].sum() / total * outside
    common_variance = own[known].sum() / total**2 * outside**2
    scatter = (gaps - common)[known] ** 2 - own[known]
    between = max(0.0, float(scatter.sum()) / max(1, int(known.sum()) - 1))
    pull = np.where(known, own / (own + between), 1.0)
    estimate = (1 - pull) * gaps + pull * common
    variance = pull * between + pull**2 * common_variance
    # A class of AP 0 everywhere has nothing to lose: certainty 0 / 0 becomes 0.
    certainty = erf(estimate / np.sqrt(2 * variance).clip(min=1e-12))
    lost = estimate.clip(min=0) * certainty / outside.clip(min=_MIN_ERROR)
    return np.where(lost >= _MIN_LOSS, lost, 0.0)

"""Slices by text: AP on the validation images that answer a text against the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hardmine.detections.average_precision import average_precision_from_matches, bootstrap_weights
from hardmine.detections.detections import Matches
from hardmine.detections.slices import Slice, answering, measure_slices
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.mining.queries import clean_name, embed_queries
from hardmine.records import ImageSet

CONDITIONS = (
    "at night",
    "in the rain",
    "in the snow",
    "in fog",
    "in the dark",
    "against the light",
    "far away",
    "in a crowd",
    "partly hidden",
    "blurred",
    "seen from above",
    "indoors",
    "under water",
    "in black and white",
)
_EXAMPLES = 6
_Z = 1.6449  # 90 % of a normal distribution lie within so many standard errors


@dataclass(frozen=True)
class TextSlice:
    """One text and what it splits.

    Attributes:
        text: As asked.
        classes: The classes that the mean is over: those the text names, else all that both
            sides show often enough.
        num_images: Images that answer.
        ap_inside: Mean AP on them; NaN where the classes are shown too rarely.
        ap_outside: Mean AP of the same classes on the rest.
        gap: ``ap_outside - ap_inside``; above 0 the slice is the harder part.
        low: Lower end of the gap's 90 % interval, from a bootstrap over images.
        high: Upper end.
        p: Probability of a gap this far from 0 if there were none; of a suggestion corrected for
            all that were tried (Holm).
        images: Ids of the images that answer best.
        paths: Where they lie, below the root of the index.
        suggested: Whether it was tried by hardmine rather than asked for.
    """

    text: str
    classes: tuple[str, ...]
    num_images: int
    ap_inside: float
    ap_outside: float
    gap: float
    low: float
    high: float
    p: float
    images: tuple[int | str, ...] = ()
    paths: tuple[str, ...] = ()
    suggested: bool = False

    @property
    def matters(self) -> bool:
        """Whether the gap is unlikely to be chance."""
        return self.p < 0.05


def text_slices(
    texts: Sequence[str],
    images: ImageSet,
    matches: Matches,
    index: Index,
    encoder: Encoder,
    *,
    share: float = 0.2,
    draws: int = 200,
    least: int = 5,
    seed: int = 0,
) -> list[TextSlice]:
    """Measure each text's slice.

    Args:
        texts: Such as "person at night".
        images: N validation images with labels.
        matches: Of the detector on them.
        index: Holds the validation images; those it lacks are left out.
        encoder: The one that made it.
        share: Share of the images that answer a text: those of the highest scores.
        draws: Bootstrap draws.
        least: Fewest objects of a class on either side for it to count.
        seed: Fixes the draws.
    """
    scores, answers = _answers(texts, images, index, encoder, share)
    present = np.isfinite(scores)
    rng = np.random.default_rng(seed)
    slices = []
    for text, score, known, answer in zip(texts, scores, present, answers, strict=True):
        named = named_classes(text, images.class_names)
        one = measure_slice(matches, answer, ~answer & known, named, draws, least, rng)
        best = np.argsort(-score, kind="stable")[: min(_EXAMPLES, int(answer.sum()))]
        slices.append(
            replace(
                one,
                text=text,
                classes=tuple(images.class_names[int(row)] for row in one.classes),
                images=tuple(images.ids[best].tolist()),
                paths=tuple(index.paths[row] for row in index.rows_of(images.ids[best]).tolist()),
            )
        )
    return slices


def suggest_slices(
    images: ImageSet,
    matches: Matches,
    index: Index,
    encoder: Encoder,
    *,
    conditions: Sequence[str] = CONDITIONS,
    share: float = 0.2,
    draws: int = 200,
    seed: int = 0,
) -> list[TextSlice]:
    """Try conditions and keep those that matter, corrected for how many were tried."""
    texts = [f"a photo {condition}" for condition in conditions]
    tried = text_slices(texts, images, matches, index, encoder, share=share, draws=draws, seed=seed)
    corrected = holm(np.array([one.p for one in tried]))
    kept = [
        replace(one, text=condition, p=p, suggested=True)
        for one, condition, p in zip(tried, conditions, corrected.tolist(), strict=True)
    ]
    return sorted((one for one in kept if one.matters), key=lambda one: -one.gap)


def hard_conditions(
    texts: Sequence[str],
    images: ImageSet,
    matches: Matches,
    index: Index,
    encoder: Encoder,
    *,
    share: float = 0.2,
    draws: int = 200,
) -> dict[str, Slice]:
    """Find for each class the text on whose images it is surely worse; by class name.

    A text that names a class says what is shown, not under which condition: it is left out.
    """
    plain = [text for text in texts if not len(named_classes(text, images.class_names))]
    if not plain:
        return {}
    scores, answers = _answers(plain, images, index, encoder, share)
    slices = measure_slices(
        matches,
        answers,
        images.class_names,
        plain,
        among=np.asarray(np.isfinite(scores).any(axis=0)),
        draws=draws,
        level=0.99,
    )
    worst: dict[str, Slice] = {}
    for one in slices:  # the neediest first
        if one.need > 0:
            worst.setdefault(one.class_name, one)
    return worst


def holm(p: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Correct p-values for having looked so often (Holm, 1979); NaN is 1.

    >>> holm(np.array([0.01, 0.04, 0.5]))
    array([0.03, 0.08, 0.5 ])
    """
    known = np.nan_to_num(p, nan=1.0)
    order = np.argsort(known, kind="stable")
    factors = len(known) - np.arange(len(known))
    stepped = np.maximum.accumulate(np.minimum(known[order] * factors, 1.0))
    corrected = np.empty(len(known))
    corrected[order] = stepped
    return corrected


def named_classes(text: str, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Rows of the classes whose name stands in a text, the longest name first; often none.

    >>> named_classes("a traffic light at night", ["light", "traffic light", "car"])
    array([1])
    """
    rest, rows = clean_name(text).lower(), []
    names = [(clean_name(name).lower(), row) for row, name in enumerate(class_names)]
    for name, row in sorted(names, key=lambda pair: -len(pair[0])):
        rest, times = re.subn(rf"\b{re.escape(name)}(s|es)?\b", " ", rest)
        if times:
            rows.append(row)
    return np.array(sorted(rows), np.int64)


def measure_slice(
    matches: Matches,
    inside: npt.NDArray[np.bool_],
    outside: npt.NDArray[np.bool_],
    named: npt.NDArray[np.int64],
    draws: int,
    least: int,
    rng: np.random.Generator,
) -> TextSlice:
    """Compare two sides; the classes are rows still, written as text.

    The standard error comes from drawing each side's images again; a percentile interval of AP
    over few images would lean upwards.
    """
    sides = (inside, outside)
    counts = np.stack(
        [
            np.bincount(
                matches.instance_classes[matches.counted & side[matches.instance_images]],
                minlength=matches.num_classes,
            )
            for side in sides
        ]
    )
    enough = np.flatnonzero((counts >= least).all(axis=0))
    classes = np.intersect1d(enough, named) if len(named) else enough
    unknown = TextSlice(
        text="",
        classes=(),
        num_images=int(inside.sum()),
        ap_inside=math.nan,
        ap_outside=math.nan,
        gap=math.nan,
        low=math.nan,
        high=math.nan,
        p=math.nan,
    )
    if not len(classes):
        return unknown
    mean, drawn = [], []
    for side in sides:
        ap = average_precision_from_matches(matches, side.astype(float), classes=classes)
        mean.append(float(ap.mean()))
        weights = bootstrap_weights(len(side), draws, rng, among=np.flatnonzero(side))
        drawn.append(_mean(average_precision_from_matches(matches, weights, classes=classes)))
    gap = mean[1] - mean[0]
    # A draw may miss the few images that show the classes; it says nothing.
    gaps = drawn[1] - drawn[0]
    told = gaps[~np.isnan(gaps)]
    error = float(np.std(told, ddof=1)) if len(told) >= max(2, draws // 2) else math.nan
    p = math.erfc(abs(gap) / error / math.sqrt(2)) if error > 0 else math.nan
    return replace(
        unknown,
        classes=tuple(str(row) for row in classes.tolist()),
        ap_inside=mean[0],
        ap_outside=mean[1],
        gap=gap,
        low=gap - _Z * error,
        high=gap + _Z * error,
        p=p,
    )


def _mean(ap: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean over the classes each draw shows; NaN where it shows none."""
    known = ~np.isnan(ap)
    count = known.sum(axis=1)
    total = np.where(known, ap, 0.0).sum(axis=1)
    means: npt.NDArray[np.float64] = np.divide(
        total, count, out=np.full(len(ap), np.nan), where=count > 0
    )
    return means


def _answers(
    texts: Sequence[str], images: ImageSet, index: Index, encoder: Encoder, share: float
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """(X, N) score of each image, -inf where the index lacks it, and whether it answers."""
    rows = index.rows_of(images.ids)
    present = rows >= 0
    if not present.any():
        raise InputError(
            f"the index holds none of the {len(images)} validation images (ids such as "
            f"{index.ids[0] if len(index) else 'none'} against {images.ids[0]}); slices need an "
            "index of them: give it with --val-index"
        )
    scores = np.full((len(texts), len(images)), -np.inf)
    vectors = embed_queries(encoder, [(text,) for text in texts], templates=["{}"])
    scores[:, present] = index.scores(vectors)[:, rows[present]]
    return scores, answering(scores, share=share)

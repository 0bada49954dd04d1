"""Slices by text: AP on the validation images that answer a text against AP on the rest."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hardmine.detections import (
    Matches,
    Slice,
    answering,
    measure_mean_gap,
    measure_slices,
    similarity_to_texts,
)
from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.mining.conditions import ConditionFinder, vocabulary
from hardmine.mining.contexts import ANSWERING_SHARE, PLAIN, answer_threshold, context_phrases
from hardmine.mining.queries import clean_name, embed_queries
from hardmine.mining.unnamed import find_unnamed
from hardmine.records import ImageSet
from hardmine.report.units import percent

UNNAMED = "unnamed"  # in place of a text
_NUM_EXAMPLES = 5


@dataclass(frozen=True)
class TextSlice:
    """AP on the validation images that answer a text, and on the rest.

    Attributes:
        text: The text; ``UNNAMED`` where no condition that was tried names it.
        classes: The classes that the mean AP is over: those that the text names, else all that
            both sides show often enough.
        num_images: Images that answer.
        ap_inside: Mean AP on them; NaN where the classes are shown too rarely.
        ap_outside: Mean AP of the same classes on the rest.
        gap: ``ap_outside - ap_inside``; above 0 the slice is harder.
        low: Lower end of the gap's 90 % interval, from a bootstrap over images.
        high: Upper end.
        p: Two-sided p-value of the gap; of a suggestion, that of ``Condition`` or ``Unnamed``.
        images: Ids of the images that answer best.
        paths: Their paths below the root of the index.
        opposite: Of a suggestion, the paths of the images that answer least.
        suggested: Whether hardmine found the text by itself.
        failures: Of a suggestion, how often the detector fails there.
        val_share: Share of the validation images that show it, by their similarity; NaN unknown.
        train_share: Share of the training images that do.
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
    opposite: tuple[str, ...] = ()
    suggested: bool = False
    failures: str = ""
    val_share: float = math.nan
    train_share: float = math.nan

    @property
    def fails(self) -> bool:
        """Whether the detector surely does worse there."""
        return self.suggested or (self.significant and self.gap > 0)

    @property
    def shown(self) -> str:
        """How often it is shown, in words; empty if unknown."""
        if math.isnan(self.train_share):
            return ""
        return (
            f"{percent(self.val_share, 0)} % of the validation images show it, "
            f"{percent(self.train_share, 0)} % of the training images"
        )

    @property
    def seldom(self) -> bool:
        """Whether training shows it less than half as often as validation."""
        return self.train_share < self.val_share / 2

    @property
    def significant(self) -> bool:
        """Whether the gap in AP is unlikely to be chance; ``p`` of a suggestion is not about AP."""
        return self.low > 0 or self.high < 0 if self.suggested else self.p < 0.05


def text_slices(
    texts: Sequence[str],
    images: ImageSet,
    matches: Matches,
    index: Index,
    encoder: Encoder,
    *,
    against: str | None = None,
) -> list[TextSlice]:
    """Measure the slice of each text.

    Args:
        texts: Such as "person at night".
        images: N validation images with labels.
        matches: Of the detector on them.
        index: Holds the validation images; those it lacks are left out.
        encoder: The one that made it.
        against: A text whose similarity is subtracted; None for none.
    """
    if not texts:
        return []
    scores = _similarity(texts, images, index, encoder, against=against)
    rng = np.random.default_rng(0)
    return [
        _measure(
            text,
            score,
            images,
            matches,
            index,
            classes=named_classes(text, images.class_names),
            rng=rng,
        )
        for text, score in zip(texts, scores, strict=True)
    ]


def suggest_slices(
    images: ImageSet,
    matches: Matches,
    index: Index,
    encoder: Encoder,
    *,
    conditions: Sequence[str] | None = None,
) -> list[TextSlice]:
    """Find conditions in which the detector fails, as mining does, and measure AP in them.

    Where objects are missed that no condition explains, the last slice is ``UNNAMED``.

    Args:
        images: Validation images with labels.
        matches: Of the detector on them.
        index: Holds them.
        encoder: The one that made it.
        conditions: What is tried; ``vocabulary()`` if None.
    """
    finder = ConditionFinder(
        images,
        index,
        encoder,
        class_names=images.class_names,
        conditions=vocabulary() if conditions is None else conditions,
    )
    found = finder.find(matches)
    unnamed = find_unnamed(finder, matches, found)
    places = [(condition.text, condition.p, condition.failures) for condition in found]
    scores = np.zeros((0, len(images)))
    if found:
        texts = [text for condition in found for text in context_phrases(condition.text)]
        scores = _similarity(texts, images, index, encoder, against=PLAIN[0])
    if unnamed is not None:
        failures = f"No condition of the list explains it: {unnamed.failures}"
        places.append((UNNAMED, unnamed.p, failures))
        scores = np.vstack([scores, unnamed.scores])
    rng = np.random.default_rng(0)
    return [
        replace(
            _measure(text, score, images, matches, index, rng=rng),
            p=p,
            opposite=_paths(images, index, _best(np.where(np.isfinite(score), -score, score))),
            suggested=True,
            failures=f"{failures} (p {p:.0e})",
        )
        for (text, p, failures), score in zip(places, scores, strict=True)
    ]


def with_shares(
    slices: Sequence[TextSlice],
    encoder: Encoder,
    *,
    val: tuple[ImageSet, Index],
    train: tuple[ImageSet, Index],
) -> list[TextSlice]:
    """Add how often validation and training show what each slice says; not where it is unnamed.

    Args:
        slices: Of the validation images.
        encoder: The one that made the indexes.
        val: Validation images and an index of them.
        train: Training images and an index of them.
    """

    def told(one: TextSlice) -> TextSlice:
        if one.text == UNNAMED:
            return one
        known = [
            scores[np.isfinite(scores)]
            for scores in (_similarity_to(one, *images, encoder) for images in (val, train))
        ]
        threshold = answer_threshold(known[0])
        val_share, train_share = (float((scores >= threshold).mean()) for scores in known)
        return replace(one, val_share=val_share, train_share=train_share)

    return [told(one) for one in slices]


def worst_contexts(
    slices: Sequence[TextSlice], images: ImageSet, matches: Matches, index: Index, encoder: Encoder
) -> dict[str, Slice]:
    """Find for each class the context in which it loses most AP; by class name.

    A text that names a class is not a context and is left out.
    """
    contexts = [one for one in slices if not len(named_classes(one.text, images.class_names))]
    if not contexts:
        return {}
    scores = np.stack([_similarity_to(one, images, index, encoder) for one in contexts])
    measured = measure_slices(
        matches,
        answering(scores, share=ANSWERING_SHARE),
        images.class_names,
        [one.text for one in contexts],
        among=np.asarray(np.isfinite(scores).any(axis=0)),
        draws=200,
        level=0.99,  # every class is tried in every context
    )
    worst: dict[str, Slice] = {}
    for part in measured:  # highest need first
        if part.need > 0:
            worst.setdefault(part.class_name, part)
    return worst


def named_classes(text: str, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Rows of the classes that a text names; a longer name takes precedence.

    >>> named_classes("a traffic light at night", ["light", "traffic light", "car"])
    array([1])
    """
    rest, rows = clean_name(text).lower(), []
    names = [(clean_name(name).lower(), row) for row, name in enumerate(class_names)]
    for name, row in sorted(names, key=lambda pair: -len(pair[0])):
        rest, count = re.subn(rf"\b{re.escape(name)}(s|es)?\b", " ", rest)
        if count:
            rows.append(row)
    return np.array(sorted(rows), np.int64)


def _measure(
    text: str,
    score: npt.NDArray[np.float64],
    images: ImageSet,
    matches: Matches,
    index: Index,
    *,
    classes: Sequence[int] | npt.NDArray[np.int64] = (),
    rng: np.random.Generator,
) -> TextSlice:
    """The slice of the images of the highest scores; of all classes if none is given."""
    (answer,) = answering(score[None], share=ANSWERING_SHARE)
    gap = measure_mean_gap(
        matches,
        answer,
        ~answer & np.isfinite(score),
        classes=np.asarray(classes) if len(classes) else None,
        rng=rng,
    )
    best = _best(score)[: int(answer.sum())]
    return TextSlice(
        text=text,
        classes=tuple(images.class_names[row] for row in gap.class_rows),
        num_images=int(answer.sum()),
        ap_inside=gap.ap_inside,
        ap_outside=gap.ap_outside,
        gap=gap.gap,
        low=gap.low,
        high=gap.high,
        p=gap.p,
        images=tuple(images.ids[best].tolist()),
        paths=_paths(images, index, best),
    )


def _best(score: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Rows of the images that are shown."""
    return np.argsort(-score, kind="stable")[:_NUM_EXAMPLES]


def _paths(images: ImageSet, index: Index, rows: npt.NDArray[np.intp]) -> tuple[str, ...]:
    return tuple(index.paths[row] for row in index.rows_of(images.ids[rows]).tolist())


def _similarity(
    texts: Sequence[str],
    images: ImageSet,
    index: Index,
    encoder: Encoder,
    *,
    against: str | None = None,
) -> npt.NDArray[np.float64]:
    """(X, N) similarity of the validation images to texts, -inf where the index lacks one."""
    vectors = embed_queries(encoder, [(text,) for text in texts], templates=["{}"])
    opposite = None
    if against is not None:
        opposite = embed_queries(encoder, [(against,)] * len(texts), templates=["{}"])
    return similarity_to_texts(images, index, vectors, against=opposite)


def _similarity_to(
    one: TextSlice, images: ImageSet, index: Index, encoder: Encoder
) -> npt.NDArray[np.float64]:
    """(N,) similarity of images to the text of a slice, as it was measured or suggested."""
    phrases = context_phrases(one.text) if one.suggested else (one.text,)
    against = PLAIN[0] if one.suggested else None
    (scores,) = _similarity(phrases, images, index, encoder, against=against)
    return np.asarray(scores)

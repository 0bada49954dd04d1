"""Conditions in which the detector fails, with validation images on both sides and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Matches, find_outcomes
from hardmine.errors import InputError
from hardmine.history import Round
from hardmine.index.base import Index
from hardmine.mining.conditions import Condition, ConditionFinder, vocabulary
from hardmine.mining.contexts import PLAIN, answer_threshold, context_phrases
from hardmine.mining.queries import embed_queries
from hardmine.records import ImageSet
from hardmine.report.text_slices import TextSlice, text_slices
from hardmine.serve.workspace import Workspace

_NUM_EXAMPLES = 8  # of each side

Floats = npt.NDArray[np.float32]
Box = tuple[float, float, float, float]
Example = tuple[int, tuple[Box, ...]]  # row in its index, and the objects missed there


@dataclass(frozen=True)
class Answers:
    """How far images answer a condition.

    Attributes:
        phrase: The text that is searched for.
        vector: (D,) of it.
        plain: (D,) of a plain photo, whose similarity is subtracted.
        values: (N,) of the indexed images; -inf without regions.
        val_values: (V,) of the images of the validation index; empty without one.
        threshold: From which an image answers, as mining draws the line: on the validation images,
            without them on those of the index.
    """

    phrase: str
    vector: Floats
    plain: Floats
    values: Floats
    val_values: Floats
    threshold: float

    @classmethod
    def to(cls, space: Workspace, text: str) -> Answers:
        """Search for a condition such as "at night"."""
        (phrase,) = context_phrases(text)
        vector, plain = embed_queries(space.encoder, [(phrase,), PLAIN], templates=["{}"])
        values = added(space.index, vector, plain)
        val_values = np.zeros(0, np.float32)
        if space.val_index is not None and space.val_images is not None:
            val_values = added(space.val_index, vector, plain)
        reference = val_values if len(val_values) else values
        threshold = answer_threshold(reference[np.isfinite(reference)])
        return cls(phrase, vector, plain, values, val_values, threshold)

    def share(self, values: Floats) -> float:
        """Share of images that answer; NaN of none."""
        known = values[np.isfinite(values)]
        return float((known >= self.threshold).mean()) if len(known) else float("nan")


def added(index: Index, vector: Floats, plain: Floats) -> Floats:
    """(N,) similarity to a text less that to a plain photo; -inf without regions."""
    scores, plain_scores = index.scores(np.stack([vector, plain]))
    known = np.isfinite(scores)
    return np.where(known, scores - np.where(known, plain_scores, 0), -np.inf).astype(np.float32)


@dataclass(frozen=True)
class ShownCondition:
    """A condition and where to see it.

    Attributes:
        condition: As it was found.
        answers: Of the images to it.
        ap: On the validation images that answer it, and on the rest; None without detections.
        inside: Validation images that answer it best.
        outside: Validation images that answer it least.
        training: Images of the index that answer it best.
        rounds: Numbers of the recorded rounds that found it.
    """

    condition: Condition
    answers: Answers
    ap: TextSlice | None
    inside: tuple[Example, ...]
    outside: tuple[Example, ...]
    training: tuple[Example, ...]
    rounds: tuple[int, ...]


def find_conditions(
    space: Workspace, matches: Matches, words: Sequence[str]
) -> tuple[Condition, ...]:
    """Find conditions as ``contexts="auto"`` does.

    Args:
        space: Has the validation images and their index.
        matches: Of the detector on them.
        words: Tried besides the list.
    """
    images, index = space.val_images, space.val_index
    assert images is not None
    if index is None:
        raise InputError(
            "conditions are found on an index of the images that the detections are on: build one, "
            "and give it with --val-index"
        )
    finder = ConditionFinder(
        images,
        index,
        space.encoder,
        class_names=images.class_names,
        conditions=vocabulary(words),
    )
    return finder.find(matches)


def conditions_of_rounds(rounds: Sequence[Round]) -> tuple[Condition, ...]:
    """What the last round that looked for conditions found."""
    return next((done.conditions for done in reversed(rounds) if done.conditions), ())


def show_conditions(
    space: Workspace,
    conditions: Sequence[Condition],
    matches: Matches | None,
    rounds: Sequence[Round],
) -> tuple[ShownCondition, ...]:
    """Find the images to see conditions by.

    Args:
        space: Has the images and indexes.
        conditions: What was found.
        matches: Of the detector on the validation images; None leaves out AP and missed objects.
        rounds: Of a training; empty for none.
    """
    if not conditions:
        return ()
    answers = [Answers.to(space, one.text) for one in conditions]
    images, index = space.val_images, space.val_index
    slices: list[TextSlice] = []
    missed: dict[int, tuple[Box, ...]] = {}
    if images is not None and index is not None and matches is not None:
        missed = _missed_boxes(images, index, matches)
        phrases = [one.phrase for one in answers]
        slices = text_slices(phrases, images, matches, index, space.encoder, against=PLAIN[0])
    shown = []
    for place, (condition, answer) in enumerate(zip(conditions, answers, strict=True)):
        order = _order(answer.val_values)
        shown.append(
            ShownCondition(
                condition=condition,
                answers=answer,
                ap=slices[place] if slices else None,
                inside=tuple((row, missed.get(row, ())) for row in order[:_NUM_EXAMPLES]),
                outside=tuple(
                    (row, missed.get(row, ())) for row in order[: -_NUM_EXAMPLES - 1 : -1]
                ),
                training=tuple((row, ()) for row in _order(answer.values)[:_NUM_EXAMPLES]),
                rounds=tuple(
                    done.number
                    for done in rounds
                    if any(one.text == condition.text for one in done.conditions)
                ),
            )
        )
    return tuple(shown)


def _missed_boxes(images: ImageSet, index: Index, matches: Matches) -> dict[int, tuple[Box, ...]]:
    """Boxes of missed objects, as shares of the image, by row of the index."""
    objects, _ = find_outcomes(images, matches)
    rows = index.rows_of(images.ids)[objects.image_rows]
    chosen = objects.failed & (rows >= 0)
    rows, boxes = rows[chosen], objects.boxes[chosen]
    height, width = index.sizes[rows].T.astype(np.float64).clip(min=1)
    shares = (boxes / np.stack([width, height, width, height], axis=1)).clip(0, 1).round(4)
    missed: dict[int, tuple[Box, ...]] = {}
    for row, box in zip(rows.tolist(), shares.tolist(), strict=True):
        missed[row] = (*missed.get(row, ()), tuple(box))
    return missed


def _order(values: npt.NDArray[Any]) -> list[int]:
    """Places of the finite values, the highest first."""
    order = np.argsort(-values, kind="stable")
    return [int(place) for place in order[: int(np.isfinite(values).sum())]]

"""Evening out: how often each image is to be drawn whatever is asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries
from hardmine.mining.targets import HIT, Targets

Floats = npt.NDArray[np.float64]

# No image is drawn more than so many times as often as the mean one for it, nor less.
_MOST = 20.0


def balance_factors(
    queries: Queries,
    targets: Targets,
    labels: Labels,
    labelled: Floats,
    *,
    answering: Mapping[str, npt.NDArray[np.bool_]],
    answers: Mapping[str, tuple[float, float]],
    taken_for: Sequence[tuple[int, int, float]],
) -> Floats:
    """How often to draw each image for all to be shown as often as it should be: (N,) factors.

    1. By objects: the sum of 1 / n_c over the objects of an image, where n_c objects of class c
       are in all images. It is as if a class were chosen, each as likely, and then one of its
       objects: so of two images the fuller one is worth more.
    2. By labels: how much of what an image shows has one.
    3. By measured conditions: how many times more often the validation images answer the rarest
       condition that the image answers.
    4. By confusion: how many times more often what the image's classes are taken for is shown.

    By objects the mean labelled image has 1. So has one without objects, and one of a pool, which
    shows besides what it was found for, as far as that is likely. By labels the mean labelled image
    has 1, and one of a pool.

    Args:
        queries: What is asked.
        targets: The images found for it.
        labels: Of N images.
        labelled: (N,) how much of what each shows probably has a label.
        answering: (N,) which images answer each measured context.
        answers: For each measured context, what tells an answer, and its share of validation.
        taken_for: (class row, row of a class that its objects are taken for, how far).
    """
    found = _found_in_pools(queries, targets)
    factors = _by_objects(labels, found)
    told = labels.labelled
    if told.any():
        factors[told] *= labelled[told] / _mean(labelled[told])
    seldom = np.ones(len(labels))
    for context, (_, share) in answers.items():
        answer = answering[context]
        ratio = share / max(answer.mean(), 1 / max(len(labels), 1))
        seldom[answer] = np.maximum(seldom[answer], ratio)
    factors *= seldom
    factors *= _by_confusion(factors, labels, found, taken_for)
    return np.asarray(factors.clip(1 / _MOST, _MOST))


@dataclass(frozen=True)
class _Found:
    """Images of unlabelled pools that probably show a class: one entry a pair of them."""

    class_rows: npt.NDArray[np.int64]
    image_rows: npt.NDArray[np.int64]
    odds: Floats


def _found_in_pools(queries: Queries, targets: Targets) -> _Found:
    plain = np.array([not condition for condition in queries.conditions], bool)
    hits = targets.take((targets.kinds == HIT) & plain[targets.query_rows])
    return _Found(
        queries.class_rows[hits.query_rows], hits.image_rows, hits.strengths.astype(np.float64)
    )


def _by_objects(labels: Labels, found: _Found) -> Floats:
    worth = labels.worth()
    shown = np.asarray(labels.objects() @ worth)
    some = shown > 0
    factors = np.ones(len(labels))
    if some.any():
        mean = _mean(shown[some])
        worth /= mean
        factors[some] = shown[some] / mean
        np.add.at(factors, found.image_rows, worth[found.class_rows] * found.odds)
    return factors


def _by_confusion(
    drawn: Floats,
    labels: Labels,
    found: _Found,
    taken_for: Sequence[tuple[int, int, float]],
) -> Floats:
    """Raise a class the more, the more its objects are taken for others that are shown more often.

    What two classes have in common a detector calls by the name it has met more often. So of a
    class's objects, those that are taken for another are to be shown as often as the other's, and
    what that makes of all its objects is what its images are raised by. An image of a pool is
    raised as far as it probably shows the class.

    Args:
        drawn: (N,) how often each image is drawn as it is.
        labels: Of them.
        found: In their pools.
        taken_for: As in ``balance_factors``.
    """
    objects = labels.objects()
    columns = {row: objects[:, [row]] for pair in taken_for for row in pair[:2]}
    shown = {row: _sum(column.data * drawn[column.indices]) for row, column in columns.items()}
    raised: dict[int, float] = {}
    for row, other, share in taken_for:
        if 0 < shown[row] < shown[other]:
            raised[row] = raised.get(row, 1.0) + share * (shown[other] / shown[row] - 1)
    factors = np.ones(len(labels))
    for row, factor in raised.items():
        images = columns[row].indices
        factors[images] = np.maximum(factors[images], factor)
        likely = found.class_rows == row
        expected = 1 + found.odds[likely] * (factor - 1)
        np.maximum.at(factors, found.image_rows[likely], expected)
    return factors


def _sum(values: Floats) -> float:
    """The sum, to the last bit the same in whatever order the values come."""
    return float(np.sort(values).sum())


def _mean(values: Floats) -> float:
    return _sum(values) / len(values)

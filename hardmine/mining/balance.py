"""Balance: how often each image is to be drawn before any class is boosted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries
from hardmine.mining.targets import HIT, Targets

Floats = npt.NDArray[np.float64]

_MAX_FACTOR = 20.0  # and 1 / 20 at least


def balance_factors(
    queries: Queries,
    targets: Targets,
    labels: Labels,
    *,
    mistaken_for: Sequence[tuple[int, int, float]],
) -> Floats:
    """Even out classes, and confused classes: (N,) factors.

    1. Objects: the sum of 1 / n_c over the objects of an image, where n_c objects of class c are
       in all images. This is drawing a class at random, each as likely, then one of its objects,
       so an image with more objects counts more.
    2. Confusion: how many times more often the classes are shown that the image's classes are
       mistaken for.

    The mean labelled image has 1 by objects. So has an image without objects, and an image of an
    unlabelled pool, plus the expected worth of the objects it was found for.

    Args:
        queries: The queries of the round.
        targets: The images they found.
        labels: Of N images.
        mistaken_for: (class row, row of a class that its objects are mistaken for, how far).
    """
    found = _found_in_pools(queries, targets)
    factors = class_balance(labels)
    unlabelled = _worth(labels)[found.class_rows] * found.probabilities
    np.add.at(factors, found.image_rows, unlabelled)
    factors *= _by_confusion(factors, labels, found, mistaken_for)
    return np.asarray(factors.clip(1 / _MAX_FACTOR, _MAX_FACTOR))


def class_balance(labels: Labels) -> Floats:
    """(N,) how often each image is drawn if a class is drawn at random, then one of its objects.

    The mean image with objects has 1; so has an image without.
    """
    shown = np.asarray(labels.objects() @ _worth(labels))
    return np.where(shown > 0, shown, 1.0)


def _worth(labels: Labels) -> Floats:
    """(C,) of an object of each class, so that the mean image with objects is worth 1."""
    worth = labels.worth()
    shown = np.asarray(labels.objects() @ worth)
    return worth / _mean(shown[shown > 0]) if (shown > 0).any() else worth


@dataclass(frozen=True)
class _PoolHits:
    """Images of unlabelled pools that probably show a class: one entry a (class, image) pair."""

    class_rows: npt.NDArray[np.int64]
    image_rows: npt.NDArray[np.int64]
    probabilities: Floats


def _found_in_pools(queries: Queries, targets: Targets) -> _PoolHits:
    of_class = np.array([not context for context in queries.contexts], bool)
    hits = targets.take((targets.kinds == HIT) & of_class[targets.query_rows])
    return _PoolHits(
        queries.class_rows[hits.query_rows], hits.image_rows, hits.strengths.astype(np.float64)
    )


def _by_confusion(
    factors: Floats,
    labels: Labels,
    found: _PoolHits,
    mistaken_for: Sequence[tuple[int, int, float]],
) -> Floats:
    """Raise classes that are mistaken for others that are shown more often.

    A detector calls what two classes have in common by the name it has met more often. So those of
    a class's objects that are mistaken for another should be shown as often as the other's
    objects. The images of the class are raised by what that makes of all its objects; an image of
    a pool by the expected value.

    Args:
        factors: (N,) how often each image is drawn so far.
        labels: Of the images.
        found: In their pools.
        mistaken_for: As in ``balance_factors``.
    """
    objects = labels.objects()
    columns = {row: objects[:, [row]] for pair in mistaken_for for row in pair[:2]}
    shown = {row: _sum(column.data * factors[column.indices]) for row, column in columns.items()}
    raised: dict[int, float] = {}
    for row, other, share in mistaken_for:
        if 0 < shown[row] < shown[other]:
            raised[row] = raised.get(row, 1.0) + share * (shown[other] / shown[row] - 1)
    result = np.ones(len(labels))
    for row, factor in raised.items():
        images = columns[row].indices
        result[images] = np.maximum(result[images], factor)
        of_class = found.class_rows == row
        expected = 1 + found.probabilities[of_class] * (factor - 1)
        np.maximum.at(result, found.image_rows[of_class], expected)
    return result


def _sum(values: Floats) -> float:
    """A sum that does not depend on the order of the values, to the last bit."""
    return float(np.sort(values).sum())


def _mean(values: Floats) -> float:
    return _sum(values) / len(values)

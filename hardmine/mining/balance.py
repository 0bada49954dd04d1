"""Balance: how often each image is to be drawn before any class is boosted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries
from hardmine.mining.targets import HIT, Targets

Floats = npt.NDArray[np.float64]

_MAX_FACTOR = 20.0  # and 1 / 20 at least
_PRIOR_OBJECTS = 5.0  # of each class, missed and shown alike, before anything is seen


def class_ratios(
    missed: npt.NDArray[Any], labelled: npt.NDArray[Any], shown: npt.NDArray[Any]
) -> Floats:
    """(C,) how many times as often validation misses objects of a class as training shows them.

    Few objects say little, so their ratio stays near 1. Of a class that validation does not show,
    nothing is known: 1. So it is of all classes where training shows none of those, as an
    unlabelled pool.

    Args:
        missed: (C,) objects of each class that the detector missed on validation images.
        labelled: (C,) objects of each class in validation.
        shown: (C,) objects of each class in the training images.
    """
    known = labelled > 0
    if not shown[known].any():
        return np.ones(len(known))
    expected = shown * (missed.sum() / shown[known].sum())
    ratios = (missed + _PRIOR_OBJECTS) / (expected + _PRIOR_OBJECTS)
    return np.where(known, ratios.clip(1 / _MAX_FACTOR, _MAX_FACTOR), 1.0)


def balance_factors(
    queries: Queries,
    targets: Targets,
    labels: Labels,
    *,
    ratios: Floats | None,
    mistaken_for: Sequence[tuple[int, int, float]],
) -> Floats:
    """Even out classes, and confused classes: (N,) factors.

    1. Objects: the worth of all objects of an image; see ``class_balance``.
    2. Confusion: how many times more often the classes are shown that the image's classes are
       mistaken for.

    The mean labelled image has 1 by objects. So has an image without objects, and an image of an
    unlabelled pool, plus the expected worth of the objects it was found for.

    Args:
        queries: The queries of the round.
        targets: The images they found.
        labels: Of N images.
        ratios: As in ``class_balance``.
        mistaken_for: (class row, row of a class that its objects are mistaken for, how far).
    """
    found = _found_in_pools(queries, targets)
    factors = class_balance(labels, ratios)
    unlabelled = _worth(labels, ratios)[found.class_rows] * found.probabilities
    np.add.at(factors, found.image_rows, unlabelled)
    factors *= _by_confusion(factors, labels, found, mistaken_for)
    return np.asarray(factors.clip(1 / _MAX_FACTOR, _MAX_FACTOR))


def class_aware(counts: scipy.sparse.spmatrix) -> Floats:
    """Class-aware sampling: draw a class uniformly, then one of its images uniformly.

    Args:
        counts: (N, C) objects of each class in each image.

    Returns:
        (N,) weights. The mean image with objects has 1; so has an image without.
    """
    return _alike(counts)[0]


def _alike(counts: scipy.sparse.spmatrix) -> tuple[Floats, Floats]:
    """(N,) weights of ``class_aware``, and the (C,) worth of each class in an image."""
    present = (counts > 0).astype(np.float64).tocsr()
    worth = 1 / np.asarray(present.sum(axis=0)).ravel().clip(min=1)
    images = np.asarray(present @ worth)
    if (images > 0).any():
        worth /= _mean(images[images > 0])
    images = np.asarray(present @ worth)
    return np.where(images > 0, images, 1.0), worth


def alike_factors(queries: Queries, targets: Targets, labels: Labels) -> Floats:
    """Draw all classes alike: (N,) factors, those of ``class_aware``.

    An image of an unlabelled pool has the expected worth of the classes it was found for more.

    Args:
        queries: The queries of the round.
        targets: The images they found.
        labels: Of N images.
    """
    found = _found_in_pools(queries, targets)
    factors, worth = _alike(labels.objects())
    np.add.at(factors, found.image_rows, worth[found.class_rows] * found.probabilities)
    return np.asarray(factors.clip(1 / _MAX_FACTOR, _MAX_FACTOR))


def class_balance(labels: Labels, ratios: Floats | None) -> Floats:
    """(N,) the worth of the objects of each image: by class, as often as validation misses them.

    The mean image with objects has 1; so has an image without.

    Args:
        labels: Of N images.
        ratios: (C,) of ``class_ratios``. None if validation does not tell: an object of a class
            of n is then worth 1 / √n, between drawing images as they are and all classes alike.
    """
    worth = np.asarray(labels.objects() @ _worth(labels, ratios))
    return np.where(worth > 0, worth, 1.0)


def _worth(labels: Labels, ratios: Floats | None) -> Floats:
    """(C,) of an object of each class, so that the mean image with objects is worth 1.

    Where nothing is labelled it is 0, so a pool alone is drawn as it is.
    """
    objects = labels.objects()
    if ratios is None:
        totals = np.asarray(objects.sum(axis=0)).ravel()
        ratios = np.where(totals > 0, totals.clip(min=1) ** -0.5, 0.0)
    worth = np.asarray(objects @ ratios)
    return ratios / _mean(worth[worth > 0]) if (worth > 0).any() else np.zeros(len(ratios))


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

"""What no word of the list names: a direction of the embedding in which objects are missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.detections import FailureTest, Matches, find_outcomes
from hardmine.mining.conditions import MIN_MORE, Condition, ConditionFinder
from hardmine.mining.contexts import answer_threshold

Floats = npt.NDArray[np.float64]

_PARTS = 5
_PENALTY = 10.0  # in mean variances of the embedding
_MAX_P = 1e-3


@dataclass(frozen=True)
class Unnamed:
    """Where objects are missed more often, beyond what the named conditions explain.

    All of it is measured on images that the direction was not fitted to.

    Attributes:
        p: How often chance alone shows as much.
        scores: (N,) how far each image lies in the direction; -inf where the index lacks it.
        num_objects: Objects far in it.
        missed: Share of them that is missed, in [0, 1].
        missed_usually: Share of all objects of the same classes and sizes that is missed.
    """

    p: float
    scores: Floats
    num_objects: int
    missed: float
    missed_usually: float

    @property
    def failures(self) -> str:
        """How often the detector misses objects there, in words."""
        return (
            f"{100 * self.missed:.0f} % of {self.num_objects:,} objects missed, "
            f"usually {100 * self.missed_usually:.0f} %"
        )


def find_unnamed(
    finder: ConditionFinder, matches: Matches, named: Sequence[Condition]
) -> Unnamed | None:
    """Predict misses from the embedding, where words do not explain them, by ridge regression.

    1. Misses and vectors are centred by class and size, and what the named conditions explain is
       taken out of both.
    2. The images are divided in five parts at random. For each, a direction is fitted to the
       others, and its own objects and images are placed along it.
    3. The places of the objects are tested as those of a condition are, beyond the named ones.

    Args:
        finder: Holds the validation images.
        matches: Of the detector on them.
        named: The conditions that it found.

    Returns:
        None if the direction says nothing, or little, of images that it was not fitted to.
    """
    objects = finder.known(find_outcomes(finder.images, matches)[0])
    if not len(objects):
        return None
    # 1. Residuals.
    vectors, images = finder.vectors(objects), finder.image_vectors()
    directions = finder.directions([condition.text for condition in named])
    test = FailureTest(objects, vectors)
    failed, residuals, slopes = test.residuals(directions)
    # 2. A direction for each part, fitted to the others.
    part_of_image = np.random.default_rng(0).integers(0, _PARTS, len(images))
    part_of_object = part_of_image[objects.image_rows]
    own = [residuals[part_of_object == part] for part in range(_PARTS)]
    squares = np.stack([rows.T @ rows for rows in own])
    products = np.stack([rows.T @ failed[part_of_object == part] for part, rows in enumerate(own)])
    penalty = _PENALTY * max(float(np.trace(squares.sum(axis=0))), 1e-12) / vectors.shape[1]
    centre = vectors.mean(axis=0)
    places, scores = np.zeros(len(objects)), np.zeros(len(images))
    for part in range(_PARTS):
        others = squares.sum(axis=0) - squares[part] + penalty * np.eye(vectors.shape[1])
        fitted = np.linalg.solve(others, products.sum(axis=0) - products[part])
        # Residuals times the fit are vectors times this.
        direction = fitted - directions.T @ (slopes @ fitted)
        places[part_of_object == part] = (vectors[part_of_object == part] - centre) @ direction
        scores[part_of_image == part] = (images[part_of_image == part] - centre) @ direction
    scores[~images.any(axis=1)] = -np.inf
    # 3. The test.
    columns = np.column_stack([places, vectors @ directions.T]).astype(np.float32)
    p = FailureTest(objects, columns).association([0], given=range(1, columns.shape[1])).p[0]
    far = places >= answer_threshold(places)
    missed, missed_usually = objects.failed[far].mean(), test.expected[far].mean()
    if p > _MAX_P or missed - missed_usually < MIN_MORE:
        return None
    return Unnamed(float(p), scores, int(far.sum()), float(missed), float(missed_usually))

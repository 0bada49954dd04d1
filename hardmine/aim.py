"""The middle of a round, a pure function: queries -> scores -> trust -> targets -> weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.confusion import Confusion
from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.labels import Labels, read_labels
from hardmine.queries import Queries, phrases
from hardmine.records import ImageSet
from hardmine.scorebook import ScoreBook
from hardmine.targets import TargetRules, Targets
from hardmine.trust import Trust, measure_trust, split_targets
from hardmine.weights import weights_from_boost


@dataclass(frozen=True)
class Ground:
    """What a training loop mines in; the same in every round.

    Attributes:
        ids: (N,) image ids in the order of the sampler's rows.
        class_names: C names.
        synonyms: For each class its other names; empty for none.
        labels: Presence of the classes in the images.
        book: Scores of the images.
        class_phrases: For each class what it alone is asked as.
    """

    ids: npt.NDArray[np.generic]
    class_names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    labels: Labels
    book: ScoreBook
    class_phrases: tuple[tuple[str, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


def lay_ground(
    index: Index,
    encoder: Encoder,
    images: ImageSet | None,
    *,
    ids: npt.ArrayLike,
    class_names: Sequence[str],
    templates: str | Sequence[str] = "short",
) -> Ground:
    """Bring index, labels and training loop together by image id."""
    names = tuple(class_names)
    same = images is not None and images.class_names == names
    synonyms = images.class_synonyms if images is not None and same else ()
    return Ground(
        ids=np.asarray(ids),
        class_names=names,
        synonyms=synonyms,
        labels=read_labels(images, ids, names),
        book=ScoreBook(index, encoder, ids, templates=templates),
        class_phrases=tuple(
            phrases(name, synonyms[row] if synonyms else ()) for row, name in enumerate(names)
        ),
    )


@dataclass(frozen=True)
class Aim:
    """What a round's queries led to.

    Attributes:
        trust: In each of Q queries.
        targets: The images they found.
        boost: (N,) in [0, 1], what is asked of each image; see ``Targets.boost``.
        weights: (N,) the images' sampling weights.
    """

    trust: Trust
    targets: Targets
    boost: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def take_aim(
    queries: Queries,
    ground: Ground,
    *,
    detections: scipy.sparse.csc_matrix | None = None,
    confusion: Confusion = (),
    rules: TargetRules | None = None,
    floor: float = 1.0,
    cap: float = 4.0,
    budget: float | None = 0.3,
) -> Aim:
    """Turn queries into weights.

    Args:
        queries: Q questions.
        ground: Where to look.
        detections: (N, C) the detector's best score for each class, where it was run.
        confusion: Which class the detector sees on objects of which other.
        rules: How targets are split.
        floor: Weight of an image that no query wants.
        cap: Largest weight.
        budget: Largest share of the draws that may move; None for no limit.
    """
    rules = rules or TargetRules()
    scores = ground.book.rows(queries.names)
    bases = ground.book.rows([ground.class_phrases[row] for row in queries.class_rows.tolist()])
    trust = measure_trust(scores, queries.class_rows, ground.labels, mute=rules.mute)
    targets = split_targets(
        scores,
        queries.class_rows,
        ground.labels,
        trust,
        base_scores=bases,
        conditions=queries.conditions,
        detections=detections,
        confusion=confusion,
        rules=rules,
    )
    boost = targets.boost(queries.need, queries.class_rows, len(ground))
    weights = weights_from_boost(boost, floor=floor, cap=cap, budget=budget)
    return Aim(trust, targets, boost, weights)

"""The middle of a round, a pure function: queries -> scores -> trust -> targets -> weights.

A weight is a product of two: how often an image would be drawn if all classes, and measured
conditions, were shown as often as they should be, by images whose labels are complete; and how much
more than that the queries want it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.mining.balance import balance_factors
from hardmine.mining.confusion import Confusion
from hardmine.mining.contexts import PLAIN, context_phrases
from hardmine.mining.label_coverage import LabelCoverage
from hardmine.mining.labels import Labels, read_labels
from hardmine.mining.queries import Queries, phrases
from hardmine.mining.scores import ScoreCache
from hardmine.mining.targets import TargetRules, Targets
from hardmine.mining.trust import Trust, measure_trust, split_targets
from hardmine.mining.weights import WeightRules, weights_from_boost
from hardmine.records import ImageSet


@dataclass(frozen=True)
class MiningData:
    """What a training loop mines in; the same in every round.

    Attributes:
        ids: (N,) image ids in the order of the sampler's rows.
        class_names: C names.
        synonyms: For each class its other names; empty for none.
        labels: Presence of the classes in the images.
        book: Scores of the images.
        class_phrases: For each class what it alone is asked as.
        completeness: How much of what each image shows has a label.
    """

    ids: npt.NDArray[np.generic]
    class_names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    labels: Labels
    book: ScoreCache
    class_phrases: tuple[tuple[str, ...], ...]
    completeness: LabelCoverage

    def __len__(self) -> int:
        return len(self.ids)


def match_data(
    index: Index,
    encoder: Encoder,
    images: ImageSet | None,
    *,
    ids: npt.ArrayLike,
    class_names: Sequence[str],
    templates: str | Sequence[str] = "short",
) -> MiningData:
    """Bring index, labels and training loop together by image id."""
    names = tuple(class_names)
    same = images is not None and images.class_names == names
    synonyms = images.class_synonyms if images is not None and same else ()
    labels = read_labels(images, ids, names)
    book = ScoreCache(index, encoder, ids, templates=templates)
    class_phrases = tuple(
        phrases(name, synonyms[row] if synonyms else ()) for row, name in enumerate(names)
    )
    return MiningData(
        ids=np.asarray(ids),
        class_names=names,
        synonyms=synonyms,
        labels=labels,
        book=book,
        class_phrases=class_phrases,
        completeness=LabelCoverage(labels, book, class_phrases),
    )


@dataclass(frozen=True)
class MiningResult:
    """What a round's queries led to.

    Attributes:
        trust: In each of Q queries.
        targets: The images they found.
        evened: (N,) factors, how often each image would be drawn if nothing were asked.
        labelled: (N,) in (0, 1], how much of what each image shows probably has a label.
        boost: (N,) in [0, 1], what is asked of each image, see ``Targets.boost``.
        weights: (N,) the images' sampling weights.
    """

    trust: Trust
    targets: Targets
    evened: npt.NDArray[np.float64]
    labelled: npt.NDArray[np.float64]
    boost: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def mine(
    queries: Queries,
    ground: MiningData,
    *,
    detections: scipy.sparse.csc_matrix | None = None,
    confusion: Confusion | None = None,
    answers: Mapping[str, tuple[float, float]] | None = None,
    rules: TargetRules | None = None,
    weighing: WeightRules | None = None,
) -> MiningResult:
    """Turn queries into weights.

    Args:
        queries: Q questions.
        ground: Where to look.
        detections: (N, C) the detector's best score for each class, where it was run.
        confusion: Which class the detector takes for which, where that was measured.
        answers: For contexts that were measured, from which added similarity an image answers,
            and how many validation images do; see ``ContextNeed``.
        rules: How targets are split.
        weighing: How they become weights.
    """
    rules = rules or TargetRules()
    weighing = weighing or WeightRules()
    confusion = confusion or Confusion()
    answers = answers or {}
    answering = _answering(ground.book, answers)
    scores = ground.book.rows(queries.names)
    bases = ground.book.rows([ground.class_phrases[row] for row in queries.class_rows.tolist()])
    trust = measure_trust(scores, queries.class_rows, ground.labels, mute=rules.mute)
    if not rules.trust:
        trust = replace(trust, factor=np.ones(len(queries)))
    targets = split_targets(
        scores,
        queries.class_rows,
        ground.labels,
        trust,
        base_scores=bases,
        conditions=queries.conditions,
        detections=detections,
        confusion=confusion.seen_on,
        answering=answering,
        rules=rules,
    )
    boost = targets.boost(queries.need, queries.class_rows, len(ground))
    labelled, evened = np.ones(len(ground)), np.ones(len(ground))
    if weighing.balance > 0:
        labelled = ground.completeness.share(rules.missing)
        evened = balance_factors(
            queries,
            targets,
            ground.labels,
            labelled,
            answering=answering,
            answers=answers,
            taken_for=[
                (row, other, rules.taken * share) for row, other, share in confusion.taken_for
            ],
        )
        evened **= weighing.balance
    weights = weights_from_boost(
        boost, floor=weighing.floor, cap=weighing.cap, budget=weighing.budget, base=evened
    )
    return MiningResult(trust, targets, evened, labelled, boost, weights)


def _answering(
    book: ScoreCache, answers: Mapping[str, tuple[float, float]]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which images answer each measured context: (N,) by context."""
    texts = [PLAIN, *map(context_phrases, answers)]
    plain, *asked = book.rows(texts, bare=True) if answers else [np.zeros(0)]
    with np.errstate(invalid="ignore"):  # an image that is not in the index answers nothing
        return {
            context: scores - plain >= least
            for (context, (least, _)), scores in zip(answers.items(), asked, strict=True)
        }

"""The middle of a round, a pure function: queries -> scores -> trust -> targets -> weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.confusion import Confusion
from hardmine.contexts import PLAIN, context_phrases
from hardmine.encoders.base import Encoder
from hardmine.index.base import Index
from hardmine.labels import Labels, read_labels
from hardmine.queries import Queries, phrases
from hardmine.records import ImageSet
from hardmine.scorebook import ScoreBook
from hardmine.targets import HARD, HIT, POSITIVE, TargetRules, Targets
from hardmine.trust import Trust, measure_trust, split_targets
from hardmine.weights import WeightRules, weights_from_boost

# However crowded an image is, it counts as at most so many times as full as the mean one, or less.
_FULLEST = 8.0


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
        rarity: (Q,) in [0, 1], what each query gets of its boost for how seldom it is answered.
        evened: (N,) in [0, 1], what each image gets for the rarest thing that it shows.
        boost: (N,) in [0, 1], that and what is asked of each image, see ``Targets.boost``.
        filled: (N,) factors, what each image gets for how many objects it shows.
        weights: (N,) the images' sampling weights.
    """

    trust: Trust
    targets: Targets
    rarity: npt.NDArray[np.float64]
    evened: npt.NDArray[np.float64]
    boost: npt.NDArray[np.float64]
    filled: npt.NDArray[np.float64]
    weights: npt.NDArray[np.float64]


def take_aim(
    queries: Queries,
    ground: Ground,
    *,
    detections: scipy.sparse.csc_matrix | None = None,
    confusion: Confusion = (),
    answers: Mapping[str, tuple[float, float]] | None = None,
    rules: TargetRules | None = None,
    weighing: WeightRules | None = None,
) -> Aim:
    """Turn queries into weights.

    Args:
        queries: Q questions.
        ground: Where to look.
        detections: (N, C) the detector's best score for each class, where it was run.
        confusion: Which class the detector sees on objects of which other.
        answers: For contexts that were measured, from which added similarity an image answers,
            and how many validation images do; see ``ContextNeed``.
        rules: How targets are split.
        weighing: How they become weights.
    """
    rules = rules or TargetRules()
    weighing = weighing or WeightRules()
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
        confusion=confusion,
        answering=answering,
        rules=rules,
    )
    ratios = {
        context: share / max(answering[context].mean(), 1 / max(len(ground), 1))
        for context, (_, share) in answers.items()
    }
    rarity = _rarity(queries, targets, ground.labels, ratios, reach=weighing.reach)
    rarity = rarity.clip(min=rules.common)
    asked = targets.boost(queries.need * rarity, queries.class_rows, len(ground))
    evened = weighing.balance * _seldom_shown(
        queries, targets, ground.labels, answering, ratios, weighing
    )
    boost = np.minimum(weighing.pull * asked + evened, 1.0)
    filled = ground.labels.fullness().clip(1 / _FULLEST, _FULLEST) ** weighing.objects
    weights = weights_from_boost(
        boost, floor=weighing.floor, cap=weighing.cap, budget=weighing.budget, base=filled
    )
    return Aim(trust, targets, rarity, evened, boost, filled, weights)


def _answering(
    book: ScoreBook, answers: Mapping[str, tuple[float, float]]
) -> dict[str, npt.NDArray[np.bool_]]:
    """Which images answer each measured context: (N,) by context."""
    texts = [PLAIN, *map(context_phrases, answers)]
    plain, *asked = book.rows(texts, bare=True) if answers else [np.zeros(0)]
    with np.errstate(invalid="ignore"):  # an image that is not in the index answers nothing
        return {
            context: scores - plain >= least
            for (context, (least, _)), scores in zip(answers.items(), asked, strict=True)
        }


def _rarity(
    queries: Queries,
    targets: Targets,
    labels: Labels,
    ratios: Mapping[str, float],
    *,
    reach: float,
) -> npt.NDArray[np.float64]:
    """How seldom each query is answered: (Q,) in [0, 1], the logarithm of a ratio to base reach.

    A measured condition is held against how often the validation images answer it, any other
    query against the mean class: so weight to the power of need makes up for the ratio. 1 for
    all where nothing is labelled.

    Args:
        queries: Q questions.
        targets: What they found.
        labels: Of the images.
        ratios: How many times more often the validation images answer a measured condition.
        reach: Of the weights, cap / floor.
    """
    classes = labels.num_present()
    if not classes.any():
        return np.ones(len(queries))
    answered = targets.counts(len(queries))[:, [POSITIVE, HARD]].sum(axis=1)
    seldom = _usual(classes) / np.maximum(answered, 1)
    told = [ratios.get(condition, np.nan) for condition in queries.conditions]
    return _logarithm(np.where(np.isnan(told), seldom, told), reach)


def _seldom_shown(
    queries: Queries,
    targets: Targets,
    labels: Labels,
    answering: Mapping[str, npt.NDArray[np.bool_]],
    ratios: Mapping[str, float],
    weighing: WeightRules,
) -> npt.NDArray[np.float64]:
    """How seldom the rarest thing in each image is shown: (N,) in [0, 1].

    A class is held against the mean class, a measured condition against the validation images and
    as far as ``pull`` goes. An unlabelled image shows what it was found for as far as that is
    likely.
    """
    reach = weighing.reach
    rarest = np.zeros(len(labels))
    classes = labels.num_present()
    if classes.any():
        seldom = _logarithm(_usual(classes) / np.maximum(classes, 1), reach)
        shown = labels.present.astype(np.float64) @ scipy.sparse.diags(seldom)
        rarest = np.asarray(shown.max(axis=1).todense(), np.float64).ravel()
        plain = np.array([not condition for condition in queries.conditions], bool)
        likely = targets.take((targets.kinds == HIT) & plain[targets.query_rows])
        found = seldom[queries.class_rows[likely.query_rows]] * likely.strengths
        np.maximum.at(rarest, likely.image_rows, found)
    for context, answer in answering.items():
        seldom = weighing.pull * _logarithm(np.array(ratios[context]), reach)
        rarest[answer] = np.maximum(rarest[answer], seldom)
    return rarest


def _usual(images: npt.NDArray[np.int64]) -> float:
    """Images of a class in the mean over those that are labelled at all: the head counts in it."""
    return float(images[images > 0].mean())


def _logarithm(ratios: npt.NDArray[np.float64], reach: float) -> npt.NDArray[np.float64]:
    """Logarithm to base reach, cut to [0, 1]."""
    if reach <= 1:
        return np.zeros(np.shape(ratios))
    return np.asarray((np.log(np.maximum(ratios, 1)) / np.log(reach)).clip(0, 1))

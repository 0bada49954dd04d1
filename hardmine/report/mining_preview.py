"""Preview one round of mining: what it would draw, without a training run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.history.rounds import Round
from hardmine.index.base import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.calibration import calibrate
from hardmine.mining.labels import ABSENT, PRESENT
from hardmine.mining.mine import MiningData
from hardmine.mining.queries import embed_queries
from hardmine.mining.targets import KINDS, SUSPECT, Targets, split_targets
from hardmine.mining.trust import Scores, Trust, measure_trust
from hardmine.records import ClassScores, ImageSet
from hardmine.report.gaps import Retrieval

_NUM_EXAMPLES = 4  # images of each class and group of kinds
_NUM_CONFUSERS = 20  # of each class


@dataclass(frozen=True)
class MinedImage:
    """An image that mining found for a class.

    Attributes:
        image_id: As in the labels.
        path: Below the index's root.
        class_name: The class whose query found it.
        kind: One of ``targets.KINDS``.
        score: Cosine similarity to the class's query.
        box: Matching region, xyxy as shares of the image's width and height.
        size: Height and width in pixels; 0 where unknown.
        weight: Its sampling weight, as a multiple of the mean weight.
    """

    image_id: int | str
    path: str
    class_name: str
    kind: str
    score: float
    box: tuple[float, float, float, float]
    size: tuple[int, int]
    weight: float


@dataclass(frozen=True)
class MiningPreview:
    """What a round of mining would do.

    Attributes:
        num_images: Images drawn from, the unlabelled pool included.
        num_raised: Images that would be drawn more often.
        moved_share: Share of an epoch's draws that would move.
        effective_size: Effective sample size as a share of the images.
        examples: For each weak class the images that would be drawn more often, and confusers.
        suspects: Images whose label of a class, weak or not, is probably missing. Weaker classes
            come first; within a class, the most similar images.
        confusers: Images labelled without a class, weak or not, that look most like it, some of
            each class in the same order.
        retrieval: By class name.
    """

    num_images: int
    num_raised: int
    moved_share: float
    effective_size: float
    examples: tuple[MinedImage, ...]
    suspects: tuple[MinedImage, ...]
    retrieval: dict[str, Retrieval]
    confusers: tuple[MinedImage, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """JSON values of what the classes of a report do not hold, the best examples alone."""
        return {
            "num_images": self.num_images,
            "num_raised": self.num_raised,
            "moved_share": self.moved_share,
            "effective_size": self.effective_size,
            "examples": [asdict(one) for one in self.examples],
            "suspects": [asdict(one) for one in self.suspects],
        }


def preview_mining(
    index: Index,
    encoder: Encoder,
    train: ImageSet,
    scores: ClassScores,
    *,
    val: ImageSet | None = None,
    detections: Any = None,
) -> MiningPreview:
    """Mine one round with the default rules and describe the result.

    Args:
        index: Of the training images; images that ``train`` lacks are an unlabelled pool.
        encoder: The one that made the index.
        train: Training images with labels.
        scores: Validation scores of each class.
        val: Validation images, for ``detections``.
        detections: Detections on them; they show which classes the detector confuses.

    Raises:
        InputError: If the index is of other images.
    """
    rows = index.rows_of(train.ids)
    if not (rows >= 0).any():
        raise InputError(
            f"the index holds none of the {len(train)} labelled training images (ids such as "
            f"{index.ids[0] if len(index) else 'none'} against {train.ids[0]}); "
            "was it built from another data set or split?"
        )
    pool = np.setdiff1d(np.arange(len(index)), rows[rows >= 0])
    ids = np.concatenate([train.ids, index.ids[pool]]) if len(pool) else train.ids
    miner = HardMiner(
        index,
        encoder=encoder,
        images=train,
        dataset_ids=ids,
        validation=ValidationSet(val) if val is not None else None,
        strict=True,
    )
    done = miner.step(scores, val_detections=detections)
    data = miner.data
    assert done.draws is not None
    assert done.result is not None
    assert done.weights is not None
    assert data is not None
    # Trust and suspects of every class, weak or not.
    class_rows = np.arange(len(data.class_names))
    class_scores = data.scores.rows(data.class_phrases)
    trust = measure_trust(class_scores, class_rows, data.labels)
    targets = split_targets(class_scores, class_rows, data.labels, trust)
    suspects = targets.take(targets.kinds == SUSPECT)
    mined_images = partial(_mined_images, index, encoder, ids, done.weights / done.weights.mean())
    class_queries = [
        (row, query.class_name, query.phrases)
        for row, query in enumerate(done.queries)
        if not query.context
    ]
    weakest_first = [
        (row, data.class_names[row], data.class_phrases[row])
        for row in np.argsort(-done.need, kind="stable").tolist()
    ]
    return MiningPreview(
        num_images=len(ids),
        num_raised=done.draws.num_raised,
        moved_share=done.draws.moved_share,
        effective_size=done.draws.effective_size / max(len(ids), 1),
        examples=mined_images(
            done.result.targets,
            class_queries,
            (("hard", "positive"), ("confuser",), ("hit",)),
            _NUM_EXAMPLES,
        ),
        suspects=mined_images(suspects, weakest_first, (("suspect",),), None),
        retrieval=_retrieval(data, class_scores, trust, suspects, done),
        confusers=mined_images(targets, weakest_first, (("confuser",),), _NUM_CONFUSERS),
    )


def _retrieval(
    data: MiningData, scores: Scores, trust: Trust, suspects: Targets, done: Round
) -> dict[str, Retrieval]:
    """What a search for each class's name finds, of every class, weak or not."""
    suspected = np.bincount(suspects.query_rows, minlength=len(data.class_names))
    confusers = _count_by_class(done, "confuser")
    draws = done.draws.class_draws if done.draws is not None else None
    retrieval = {}
    for row, name in enumerate(data.class_names):
        status = data.labels.status(row)
        scored = np.isfinite(scores[row])
        present = scores[row][(status == PRESENT) & scored]
        likely = np.zeros(len(scored), bool)
        if len(present):
            calibration = calibrate(present, scores[row][(status == ABSENT) & scored])
            likely = scored & (calibration.presence(scores[row]) >= 0.5)
        retrieval[name] = Retrieval(
            trust=float(trust.precision[row]),
            retrieved=int(likely.sum()),
            labelled=int((likely & (status == PRESENT)).sum()),
            suspects=int(suspected[row]),
            confusers=confusers.get(name, 0),
            draws=float("nan") if draws is None else float(draws[row]),
        )
    return retrieval


def _count_by_class(done: Round, kind: str) -> dict[str, int]:
    """Number of images of a kind by class name; an image of several queries counts once."""
    assert done.result is not None
    targets = done.result.targets
    chosen = targets.take(targets.kinds == KINDS.index(kind))
    pairs = {
        (done.queries[query].class_name, image)
        for query, image in zip(chosen.query_rows.tolist(), chosen.image_rows.tolist(), strict=True)
    }
    return Counter(name for name, _ in pairs)


def _mined_images(
    index: Index,
    encoder: Encoder,
    ids: npt.NDArray[Any],
    weights: npt.NDArray[np.float64],
    targets: Targets,
    queries: Sequence[tuple[int, str, tuple[str, ...]]],
    groups: Sequence[Sequence[str]],
    limit: int | None,
) -> tuple[MinedImage, ...]:
    """The strongest targets of each query, with the region that matched.

    Args:
        index: Of the training images.
        encoder: The one that made it.
        ids: (N,) image ids in the order of the targets' rows.
        weights: (N,) sampling weights, as multiples of the mean.
        targets: Of the queries.
        queries: For each query its row among the targets, its class and its phrases.
        groups: Kinds that are ranked together.
        limit: Most images of each query and group; None for all.
    """
    mined = []
    index_rows = index.rows_of(ids)
    for query, class_name, phrases in queries:
        if not (targets.query_rows == query).any():
            continue
        vector = embed_queries(encoder, [phrases])
        for kinds in groups:
            of_kind = np.isin(targets.kinds, [KINDS.index(kind) for kind in kinds])
            in_index = index_rows[targets.image_rows] >= 0
            chosen = targets.take((targets.query_rows == query) & of_kind & in_index)
            order = np.lexsort((-chosen.scores, -chosen.strengths))[:limit]
            images = chosen.image_rows[order]
            if not len(images):
                continue
            rows = index_rows[images]
            scores, boxes = index.best_regions(vector, rows[None])
            for place, row in enumerate(rows.tolist()):
                mined.append(
                    MinedImage(
                        image_id=ids[images[place]].item(),
                        path=index.paths[row],
                        class_name=class_name,
                        kind=KINDS[chosen.kinds[order[place]]],
                        score=float(scores[0, place]),
                        box=_box(boxes[0, place]),
                        size=(int(index.sizes[row, 0]), int(index.sizes[row, 1])),
                        weight=float(weights[images[place]]),
                    )
                )
    return tuple(mined)


def _box(box: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(edge), 4) for edge in box)
    return (left, top, right, bottom)

"""What mining would do with a detector's weaknesses: a round that is not applied."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Shown:
    """An image of the index and why it is shown.

    Attributes:
        image_id: As the labels have it.
        path: Below the index's root.
        class_name: The class it is about.
        kind: One of ``targets.KINDS``.
        score: Cosine similarity to the class's query.
        box: Matching region, xyxy as shares of the image's width and height.
        size: Height and width in pixels; 0 where unknown.
        weight: How many times as often as on average it would be drawn.
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
class Mined:
    """What a round of mining would do.

    Attributes:
        num_images: Images drawn from, the unlabelled pool included.
        num_raised: How many would be drawn more often.
        moved_share: Share of an epoch's draws that would move.
        effective_size: Effective sample size as a share of the images.
        examples: For each weak class the images that would be drawn more, and confusers.
        suspects: Images whose label of a class, weak or not, is probably missing: weaker classes
            first, of a class the most alike first.
        retrieval: By class name.
    """

    num_images: int
    num_raised: int
    moved_share: float
    effective_size: float
    examples: tuple[Shown, ...]
    suspects: tuple[Shown, ...]
    retrieval: dict[str, Retrieval]

    def to_json(self) -> dict[str, Any]:
        """Plain values without what the classes say themselves."""
        return {
            "num_images": self.num_images,
            "num_raised": self.num_raised,
            "moved_share": self.moved_share,
            "effective_size": self.effective_size,
            "examples": [asdict(one) for one in self.examples],
            "suspects": [asdict(one) for one in self.suspects],
        }


def mine_once(
    index: Index,
    encoder: Encoder,
    train: ImageSet,
    scores: ClassScores,
    *,
    val: ImageSet | None = None,
    detections: Any = None,
    examples: int = 4,
) -> Mined:
    """Ask what a round of mining would draw, and how far its index can be trusted.

    Args:
        index: Of the training images; images that ``train`` lacks are an unlabelled pool.
        encoder: The one that made the index.
        train: Training images with labels.
        scores: What validation said of each class.
        val: Validation images, for ``detections``.
        detections: What the detector found on them, to know which classes it confuses.
        examples: Images a class and kind.

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
    # Every class, weak or not.
    class_rows = np.arange(len(data.class_names))
    scores_of_classes = data.scores.rows(data.class_phrases)
    trust = measure_trust(scores_of_classes, class_rows, data.labels)
    targets = split_targets(scores_of_classes, class_rows, data.labels, trust)
    suspects = targets.take(targets.kinds == SUSPECT)
    shown = partial(_examples, index, encoder, ids, done.weights / done.weights.mean())
    of_classes = [
        (row, query.class_name, query.phrases)
        for row, query in enumerate(done.queries)
        if not query.context
    ]
    weakest_first = [
        (row, data.class_names[row], data.class_phrases[row])
        for row in np.argsort(-done.need, kind="stable").tolist()
    ]
    return Mined(
        num_images=len(ids),
        num_raised=done.draws.num_raised,
        moved_share=done.draws.moved_share,
        effective_size=done.draws.effective_size / max(len(ids), 1),
        examples=shown(
            done.result.targets,
            of_classes,
            (("hard", "positive"), ("confuser",), ("hit",)),
            examples,
        ),
        suspects=shown(suspects, weakest_first, (("suspect",),), None),
        retrieval=_retrieval(data, scores_of_classes, trust, suspects, done),
    )


def _retrieval(
    data: MiningData, scores: Scores, trust: Trust, suspects: Targets, done: Round
) -> dict[str, Retrieval]:
    """Trust and coverage of every class, weak or not."""
    suspected = np.bincount(suspects.query_rows, minlength=len(data.class_names))
    confusers = _count_by_class(done, "confuser")
    draws = done.draws.class_draws if done.draws is not None else None
    said = {}
    for row, name in enumerate(data.class_names):
        status = data.labels.status(row)
        scored = np.isfinite(scores[row])
        present = scores[row][(status == PRESENT) & scored]
        answering = labelled = 0
        if len(present):
            meaning = calibrate(present, scores[row][(status == ABSENT) & scored])
            # What the labels call present in one of two images of that score.
            answers = scored & (meaning.presence(scores[row]) >= 0.5)
            answering, labelled = int(answers.sum()), int((answers & (status == PRESENT)).sum())
        said[name] = Retrieval(
            trust=float(trust.precision[row]),
            answering=answering,
            labelled=labelled,
            suspects=int(suspected[row]),
            confusers=confusers.get(name, 0),
            draws=float("nan") if draws is None else float(draws[row]),
        )
    return said


def _count_by_class(done: Round, kind: str) -> dict[str, int]:
    """Images of a kind by class name, each once."""
    assert done.result is not None
    targets = done.result.targets
    chosen = targets.take(targets.kinds == KINDS.index(kind))
    pairs = {
        (done.queries[query].class_name, image)
        for query, image in zip(chosen.query_rows.tolist(), chosen.image_rows.tolist(), strict=True)
    }
    counts: dict[str, int] = {}
    for name, _ in pairs:
        counts[name] = counts.get(name, 0) + 1
    return counts


def _examples(
    index: Index,
    encoder: Encoder,
    ids: npt.NDArray[Any],
    drawn: npt.NDArray[np.float64],
    targets: Targets,
    queries: Sequence[tuple[int, str, tuple[str, ...]]],
    groups: Sequence[Sequence[str]],
    limit: int | None,
) -> tuple[Shown, ...]:
    """The strongest images of each class and group of kinds with the region that matched.

    Of N images it is known how many times as often as on average they would be ``drawn``; of each
    query its row among the targets, its class and its phrases. No ``limit`` is all.
    """
    shown = []
    index_rows = index.rows_of(ids)
    for query, class_name, phrases in queries:
        if not (targets.query_rows == query).any():
            continue
        vector = embed_queries(encoder, [phrases])
        for kinds in groups:
            wanted = [KINDS.index(kind) for kind in kinds]
            mine = (targets.query_rows == query) & np.isin(targets.kinds, wanted)
            chosen = targets.take(mine & (index_rows[targets.image_rows] >= 0))
            order = np.lexsort((-chosen.scores, -chosen.strengths))[:limit]
            images = chosen.image_rows[order]
            if not len(images):
                continue
            rows = index_rows[images]
            scores, boxes = index.best_regions(vector, rows[None])
            for place, row in enumerate(rows.tolist()):
                shown.append(
                    Shown(
                        image_id=ids[images[place]].item(),
                        path=index.paths[row],
                        class_name=class_name,
                        kind=KINDS[chosen.kinds[order[place]]],
                        score=float(scores[0, place]),
                        box=_box(boxes[0, place]),
                        size=(int(index.sizes[row, 0]), int(index.sizes[row, 1])),
                        weight=float(drawn[images[place]]),
                    )
                )
    return tuple(shown)


def _box(box: npt.NDArray[np.float32]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (round(float(edge), 4) for edge in box)
    return (left, top, right, bottom)

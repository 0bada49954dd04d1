"""Preview one round of mining: what it would draw, without a training run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.exports import MinedImage
from hardmine.exports.mined import find_mined
from hardmine.index.base import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.evidence import Evidence
from hardmine.mining.labels import PRESENT
from hardmine.mining.mine import MiningData
from hardmine.mining.queries import Queries
from hardmine.mining.targets import CONFUSER, SUSPECT, Targets, split_targets
from hardmine.mining.trust import Trust, measure_trust
from hardmine.mining.weights import NO_LOOK, WeightRules
from hardmine.records import ClassScores, ImageSet
from hardmine.report.gaps import Retrieval

_NUM_EXAMPLES = 4  # images of each class and group of kinds
_NUM_CONFUSERS = 20  # of each class


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
        drawn_by: What draws follow where that is not classes and queries, or why it is these in the
            last quarter of a training; else empty.
    """

    num_images: int
    num_raised: int
    moved_share: float
    effective_size: float
    examples: tuple[MinedImage, ...]
    suspects: tuple[MinedImage, ...]
    retrieval: dict[str, Retrieval]
    confusers: tuple[MinedImage, ...] = ()
    drawn_by: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values of what the classes of a report do not hold, the best examples alone."""
        return {
            "num_images": self.num_images,
            "num_raised": self.num_raised,
            "moved_share": self.moved_share,
            "effective_size": self.effective_size,
            "drawn_by": self.drawn_by,
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
    val_index: Index | None = None,
    detections: Any = None,
    epochs: float | None = None,
) -> MiningPreview:
    """Mine one round with the default rules and describe the result.

    It is the first round of a training or, where images come so often that draws are equal before,
    one of its end.

    Args:
        index: Of the training images; images that ``train`` lacks are an unlabelled pool.
        encoder: The one that made the index.
        train: Training images with labels.
        scores: Validation scores of each class.
        val: Validation images, for ``detections``.
        val_index: Of ``val``; shows what missed objects look like.
        detections: Detections on them; they show which classes the detector confuses.
        epochs: How often the next training will show each image; None if not known.

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
        validation=ValidationSet(val, val_index) if val is not None else None,
        strict=True,
    )
    length = epochs or 1.0
    first = 0.0 if length <= WeightRules().max_passes else length
    done = miner.step(scores, val_detections=detections, epochs_done=first, epochs=length)
    data = miner.data
    assert done.draws is not None
    assert done.result is not None
    assert done.weights is not None
    assert data is not None
    # Trust and suspects of every class, weak or not.
    class_rows = np.arange(len(data.class_names))
    names = Queries(
        data.class_phrases, class_rows, ("",) * len(class_rows), np.ones(len(class_rows))
    )
    evidence = data.evidence.of(names)
    trust = measure_trust(evidence)
    targets = split_targets(evidence, class_rows, data.labels, trust)
    suspects = targets.take(targets.kinds == SUSPECT)
    mined_images = partial(find_mined, index, encoder, ids, done.weights / done.weights.mean())
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
        retrieval=_retrieval(data, evidence, trust, targets, done.draws.class_draws),
        confusers=mined_images(targets, weakest_first, (("confuser",),), _NUM_CONFUSERS),
        drawn_by=NO_LOOK if NO_LOOK in done.notes else done.drawn_by,
    )


def _retrieval(
    data: MiningData,
    evidence: Sequence[Evidence],
    trust: Trust,
    targets: Targets,
    draws: npt.NDArray[np.float64] | None,
) -> dict[str, Retrieval]:
    """What a search for each class's name finds, of every class, weak or not."""
    counts = targets.counts(len(data.class_names))
    retrieval = {}
    rows = data.scores.each(data.class_phrases)
    for row, (name, scores) in enumerate(zip(data.class_names, rows, strict=True)):
        likely = np.zeros(len(scores), bool)
        calibration = evidence[row].calibration
        if calibration is not None:
            likely = np.isfinite(scores) & (calibration.presence(scores) >= 0.5)
        status = data.labels.status(row)
        retrieval[name] = Retrieval(
            trust=float(trust.precision[row]),
            retrieved=int(likely.sum()),
            labelled=int((likely & (status == PRESENT)).sum()),
            suspects=int(counts[row, SUSPECT]),
            confusers=int(counts[row, CONFUSER]),
            draws=float("nan") if draws is None else float(draws[row]),
        )
    return retrieval

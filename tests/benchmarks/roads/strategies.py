"""The ways of drawing: a strategy gets a run's data once, and then turns rounds into weights.

A strategy of one's own is an entry of ``STRATEGIES``; mining with other weights is
``hardmine(weights=policy)``, where the policy is one of ``HardMiner``'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.bench.baselines import inverse_ap, repeat_factors
from hardmine.detections import Detections
from hardmine.encoders import Encoder
from hardmine.index.base import Index
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.balance import class_aware
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

Floats = npt.NDArray[np.float64]
_ENDLESS = 1e6  # passes: no schedule is longer
CONTEXTS = ("at night", "in the rain", "in the snow")


@dataclass(frozen=True)
class DrawData:
    """What strategies may know of a run.

    Attributes:
        ids: (N,) image ids in the order of the sampler's rows.
        known: The training photos whose labels are known.
        val: Validation photos with labels.
        index: Regions of at least these photos.
        encoder: The one that made the index.
        sampler: Draws the rows; gets the weights after each round.
        told: (N,) factor by which val shows each photo's condition more often than training, 1
            where it does not. No strategy but the told ones may read it.
    """

    ids: npt.NDArray[np.int64]
    known: ImageSet
    val: ImageSet
    index: Index
    encoder: Encoder
    sampler: HardMiningSampler
    told: Floats

    @property
    def counts(self) -> scipy.sparse.csr_matrix:
        """(N, C) labels of each class in each photo; 0 where labels are not known."""
        rows = np.searchsorted(self.ids, self.known.ids)
        shape = (len(self.ids), len(rows))
        place = scipy.sparse.csr_matrix((np.ones(len(rows)), (rows, np.arange(len(rows)))), shape)
        return (place @ self.known.class_counts).tocsr()


@dataclass(frozen=True)
class RoundView:
    """What a round starts from.

    Attributes:
        progress: Share of the training that is done.
        passes: How often the whole training shows each photo, on average.
        ap: (C,) AP on val.
        found: Detections on val.
    """

    progress: float
    passes: float
    ap: Floats
    found: Detections


Rule = Callable[[RoundView], Floats]  # -> (N,) weights


@dataclass(frozen=True)
class Strategy:
    """A way of drawing.

    Attributes:
        about: Its name in tables.
        start: Gets a run's data, and returns the rule of its rounds.
        validates: Whether weights depend on validations; if not, the first rule's stay.
        late: Whether it draws uniformly until the last round, so that strategies can share what
            comes before it.
    """

    about: str
    start: Callable[[DrawData], Rule]
    validates: bool = True
    late: bool = False


def told_factors(train_shows: npt.NDArray[np.bool_], val_shows: npt.NDArray[np.bool_]) -> Floats:
    """Weights that draw a condition as often as validation shows it, if training shows it less.

    Args:
        train_shows: (N,) whether each training photo shows the condition.
        val_shows: The same of the validation photos.

    >>> told_factors(np.array([True, False, False, False]), np.array([True, False]))
    array([3., 1., 1., 1.])
    """
    ours, theirs = train_shows.mean(), val_shows.mean()
    if not 0 < ours < theirs < 1:
        return np.ones(len(train_shows))
    return np.where(train_shows, (theirs / (1 - theirs)) / (ours / (1 - ours)), 1.0)


def _fixed(about: str, weights_of: Callable[[DrawData], Floats]) -> Strategy:
    """A strategy that does not look at validations."""

    def start(data: DrawData) -> Rule:
        weights = weights_of(data)
        return lambda view: weights

    return Strategy(about, start, validates=False)


def _inverse_ap(data: DrawData) -> Rule:
    counts = data.counts
    return lambda view: inverse_ap(counts, view.ap)


def hardmine(*, measured: bool = True, **options: Any) -> Callable[[DrawData], Rule]:
    """Mining, with arguments of ``HardMiner``.

    Args:
        measured: Whether validation is known by its images and detections, not by AP alone.
        options: Of ``HardMiner``.
    """

    def start(data: DrawData) -> Rule:
        miner = HardMiner(
            data.index,
            data.sampler,
            encoder=data.encoder,
            images=data.known,
            dataset_ids=data.ids,
            validation=ValidationSet(data.val, data.index) if measured else None,
            strict=True,
            **options,
        )

        def rule(view: RoundView) -> Floats:
            metrics = dict(zip(data.known.class_names, view.ap.tolist(), strict=True))
            found = view.found if measured else None
            epochs = view.passes * len(data.ids) / data.sampler.epoch_length
            done = miner.step(
                metrics,
                val_detections=found,
                epochs_done=view.progress * epochs,
                epochs=epochs,
                every=1,
            )
            assert done.weights is not None
            return np.asarray(done.weights, np.float64)

        return rule

    return start


STRATEGIES: dict[str, Strategy] = {
    "uniform": replace(_fixed("uniform", lambda data: np.ones(len(data.ids))), late=True),
    "repeat": _fixed(
        "repeat factors (LVIS), threshold 0.1",
        lambda data: repeat_factors(data.counts, threshold=0.1),
    ),
    "class-aware": _fixed("class-aware", lambda data: class_aware(data.counts)),
    "inverse-ap": Strategy("inverse AP (YOLOv5)", _inverse_ap),
    "hardmine": Strategy("hardmine", hardmine()),
    "hardmine-class-aware": Strategy("hardmine, class-aware", hardmine(weights="class-aware")),
    "hardmine-throughout": Strategy(
        "hardmine, not in the last quarter alone",
        hardmine(weights=WeightRules(max_passes=_ENDLESS)),
    ),
    "hardmine-no-look": Strategy(
        "hardmine, without the last quarter by look",
        hardmine(weights=WeightRules(look_from=1.0, max_passes=_ENDLESS)),
    ),
    "hardmine-no-boosts": Strategy(
        "hardmine without boosts", hardmine(weights=WeightRules(cap=1.0))
    ),
    "hardmine-no-mistaken": Strategy(
        "hardmine, confused classes not evened out", hardmine(targets=TargetRules(mistaken=0.0))
    ),
    "hardmine-labels": Strategy("hardmine, AP and labels alone", hardmine(measured=False)),
    "hardmine-contexts": Strategy(
        f"hardmine, contexts named: {', '.join(CONTEXTS)}", hardmine(contexts=CONTEXTS)
    ),
    "hardmine-auto": Strategy("hardmine, contexts found by itself", hardmine(contexts="auto")),
    "told": _fixed(
        "told: draws the weak condition as often as validation shows it", lambda data: data.told
    ),
    "told-root": _fixed(
        "told, by the square root: half way there", lambda data: np.sqrt(data.told)
    ),
}
STRATEGIES |= {
    f"{name}-late": replace(
        STRATEGIES[name], about=f"{STRATEGIES[name].about}, in the last quarter alone", late=True
    )
    for name in ("class-aware", "inverse-ap", "hardmine")
}
STRATEGIES["told-late"] = replace(
    STRATEGIES["told"], about="told, in the last quarter alone", late=True
)

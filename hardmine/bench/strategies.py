"""The ways of drawing that are compared: label-only baselines, mining, and mining without a part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.bench.baselines import class_aware, inverse_ap, repeat_factors
from hardmine.bench.scenarios import Scenario
from hardmine.detections import Detections
from hardmine.encoders.base import Encoder
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

Floats = npt.NDArray[np.float64]
# (N, C) label counts, (C,) AP of the last validation -> (N,) weights.
Rival = Callable[[Any, Floats], Floats]


@dataclass(frozen=True)
class Strategy:
    """One way of drawing.

    Attributes:
        about: What it is, for people.
        baseline: Weights from labels and AP; None for mining or for uniform drawing.
        mining: Arguments of ``HardMiner``; None where nothing is mined.
        whole: Whether mining has one vector an image only.
        known: Share of the images whose labels the sampler may know. The detector learns from all.
        told: Whether it is told, as nobody is, what the weakness is, and draws by ``Scenario.told``
            too: about as much as knowing it could bring.
    """

    about: str
    baseline: Rival | None = None
    mining: Mapping[str, Any] | None = None
    whole: bool = False
    known: float = 1.0
    told: bool = False

    @property
    def fair(self) -> bool:
        """Whether it knows all labels, and no more than them."""
        return self.known == 1 and not self.told


def _knowing(strategy: Strategy, known: float) -> Strategy:
    return replace(
        strategy, about=f"{strategy.about}, {known:.0%} of the labels known", known=known
    )


_REPEAT = Strategy(
    "repeat factors (LVIS), threshold 0.1", lambda counts, ap: repeat_factors(counts, threshold=0.1)
)
_CLASS = Strategy("class-aware", lambda counts, ap: class_aware(counts))
_INVERSE = Strategy("inverse AP (YOLOv5)", inverse_ap)
_MINED = Strategy("hardmine", mining={})

STRATEGIES: dict[str, Strategy] = {
    "uniform": Strategy("uniform"),
    "repeat": _REPEAT,
    "class-aware": _CLASS,
    "inverse-ap": _INVERSE,
    "told": replace(_INVERSE, about="inverse AP, told which labels are missing", told=True),
    "told-classes": replace(
        _CLASS, about="class-aware, told which classes are fine: twice as often", told=True
    ),
    "hardmine": _MINED,
    "no-trust": Strategy("hardmine without trust", mining={"targets": TargetRules(trust=False)}),
    "no-confusers": Strategy(
        "hardmine without confusers", mining={"targets": TargetRules(confuser=0.0)}
    ),
    "no-mistaken": Strategy(
        "hardmine without balancing confused classes", mining={"targets": TargetRules(mistaken=0.0)}
    ),
    "no-label-coverage": Strategy(
        "hardmine, taking the labels as complete", mining={"targets": TargetRules(missing=0.0)}
    ),
    "no-contexts": Strategy("hardmine without contexts", mining={"contexts": ()}),
    "whole": Strategy("hardmine, one vector an image", mining={}, whole=True),
    "no-budget": Strategy(
        "hardmine without a budget", mining={"weights": WeightRules(budget=None)}
    ),
    **{
        f"{name}-{share:.0%}".rstrip("%"): _knowing(strategy, share)
        for share in (0.5, 0.8)
        for name, strategy in (
            ("class-aware", _CLASS),
            ("inverse-ap", _INVERSE),
            ("hardmine", _MINED),
        )
    },
}


class Drawer:
    """Draws by one strategy's weights, which it may change at each validation.

    Args:
        strategy: How it draws.
        scenario: From what.
        encoder: The one that made the scenario's indexes.
        draws: Of an epoch.
        epoch: Of its first draws; all images were drawn alike in those before.
        seed: Of the draws.
    """

    def __init__(
        self,
        strategy: Strategy,
        scenario: Scenario,
        encoder: Encoder,
        *,
        draws: int,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        self.strategy = strategy
        self.seconds = 0.0
        images = _known_part(scenario.train, strategy.known)
        self._counts = _counts_by_row(images, scenario.train)
        self._names = scenario.train.class_names
        self._factor = scenario.told if strategy.told else 1.0
        self.sampler = HardMiningSampler(len(scenario.train), epoch_length=draws, seed=seed)
        self.sampler.set_epoch(epoch)
        self._miner = None
        if strategy.mining is not None:
            options = {"contexts": scenario.weakness.contexts, **strategy.mining}
            self._miner = HardMiner(
                scenario.whole_index if strategy.whole else scenario.index,
                self.sampler,
                encoder=encoder,
                images=images,
                dataset_ids=scenario.train.ids,
                validation=ValidationSet(scenario.val, scenario.val_index),
                strict=True,
                **options,
            )

    @property
    def looks(self) -> bool:
        """Whether it wants to see validations at all."""
        return self._miner is not None or self.strategy.baseline is not None

    def see(self, ap: Floats, detections: Detections) -> None:
        """Take in a validation."""
        if self._miner is not None:
            metrics = dict(zip(self._names, ap.tolist(), strict=True))
            self.seconds += self._miner.step(metrics, val_detections=detections).seconds
        elif self.strategy.baseline is not None:
            self.sampler.set_weights(self.strategy.baseline(self._counts, ap) * self._factor)

    def draw(self) -> torch.Tensor:
        """Rows of the next epoch."""
        return torch.tensor(list(self.sampler))


def _known_part(images: ImageSet, share: float) -> ImageSet:
    """The images whose labels are known: a random share, the same whenever it is asked for."""
    if share == 1:
        return images
    order = np.random.default_rng(0).permutation(len(images))
    return images.subset(np.sort(order[: round(share * len(images))]))


def _counts_by_row(known: ImageSet, all_images: ImageSet) -> Any:
    """(N, C) label counts in the order of all images; an image of unknown labels has none."""
    import scipy.sparse

    rows = all_images.rows_of(known.ids)
    place = scipy.sparse.csr_matrix(
        (np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(all_images), len(rows))
    )
    return (place @ known.class_counts).tocsr()

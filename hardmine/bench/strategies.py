"""The strategies: label-only baselines, mining, and mining without one of its parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.sparse
import torch

from hardmine.bench.baselines import inverse_ap, repeat_factors
from hardmine.bench.scenarios import Scenario
from hardmine.detections import Detections
from hardmine.encoders import Encoder
from hardmine.miner import HardMiner
from hardmine.mining.assess import ValidationSet
from hardmine.mining.balance import class_aware
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules
from hardmine.records import ImageSet
from hardmine.sampler import HardMiningSampler

Floats = npt.NDArray[np.float64]
_ENDLESS = 1e6  # passes: no schedule is longer
# (N, C) label counts, (C,) AP of the last validation -> (N,) weights.
Baseline = Callable[[scipy.sparse.csr_matrix, Floats], Floats]


@dataclass(frozen=True)
class Strategy:
    """One way of drawing training images. With neither baseline nor mining it is uniform.

    Attributes:
        about: Its name in tables.
        baseline: Computes weights from labels and AP; None if it does not draw by labels alone.
        mining: Arguments of ``HardMiner``; None if it does not mine.
        late: Whether it draws uniformly until the last quarter of the epochs.
        whole_image: Whether mining has one vector an image instead of its regions.
        known_share: Share of the images whose labels the sampler knows. The detector learns from
            all labels.
        oracle: Whether it also knows the scenario's weakness, as no sampler does, and multiplies
            its weights by ``Scenario.oracle_factors``: about the most that knowing it can gain.
    """

    about: str
    baseline: Baseline | None = None
    mining: Mapping[str, Any] | None = None
    late: bool = False
    whole_image: bool = False
    known_share: float = 1.0
    oracle: bool = False

    @property
    def fair_baseline(self) -> bool:
        """Whether it is a baseline that knows all labels and nothing more."""
        return self.baseline is not None and self.known_share == 1 and not self.oracle


def _with_known_share(strategy: Strategy, share: float) -> Strategy:
    return replace(
        strategy, about=f"{strategy.about}, {share:.0%} of the labels known", known_share=share
    )


_REPEAT = Strategy(
    "repeat factors (LVIS), threshold 0.1", lambda counts, ap: repeat_factors(counts, threshold=0.1)
)
_CLASS_AWARE = Strategy("class-aware", lambda counts, ap: class_aware(counts))
_INVERSE_AP = Strategy("inverse AP (YOLOv5)", inverse_ap)
_HARDMINE = Strategy("hardmine", mining={})

STRATEGIES: dict[str, Strategy] = {
    "uniform": Strategy("uniform"),
    "repeat": _REPEAT,
    "class-aware": _CLASS_AWARE,
    "inverse-ap": _INVERSE_AP,
    "oracle-labels": replace(
        _INVERSE_AP, about="inverse AP, oracle: knows which labels are missing", oracle=True
    ),
    "oracle-classes": replace(
        _CLASS_AWARE, about="class-aware, oracle: draws fine classes twice as often", oracle=True
    ),
    "hardmine": _HARDMINE,
    "hardmine-class-aware": Strategy("hardmine, class-aware", mining={"weights": "class-aware"}),
    "class-aware-late": replace(
        _CLASS_AWARE, about="class-aware, in the last quarter alone", late=True
    ),
    "hardmine-late": Strategy(
        "hardmine, in the last quarter alone",
        mining={"weights": WeightRules(max_passes=0.0)},
        late=True,
    ),
    "hardmine-throughout": Strategy(
        "hardmine, not in the last quarter alone",
        mining={"weights": WeightRules(max_passes=_ENDLESS)},
    ),
    "no-look": Strategy(
        "hardmine without the last quarter by look",
        mining={"weights": WeightRules(look_from=1.0, max_passes=_ENDLESS)},
    ),
    "no-mistaken": Strategy(
        "hardmine without balancing confused classes", mining={"targets": TargetRules(mistaken=0.0)}
    ),
    "no-contexts": Strategy("hardmine without contexts", mining={"contexts": ()}),
    "auto": Strategy("hardmine, contexts found by itself", mining={"contexts": "auto"}),
    "whole-image": Strategy("hardmine, one vector an image", mining={}, whole_image=True),
    **{
        f"{name}-{100 * share:.0f}": _with_known_share(strategy, share)
        for share in (0.5, 0.8)
        for name, strategy in (
            ("class-aware", _CLASS_AWARE),
            ("inverse-ap", _INVERSE_AP),
            ("hardmine", _HARDMINE),
        )
    },
}


class StrategySampler:
    """Draws epochs by one strategy, whose weights may change with each validation.

    Args:
        strategy: How to draw.
        scenario: What to draw from.
        encoder: The one that made the scenario's indexes.
        epoch_length: Draws an epoch.
        epoch: Number of the first epoch. The epochs before it were drawn uniformly.
        seed: Of the draws.

    Attributes:
        sampler: Draws the rows.
        mining_seconds: Time spent in mining so far.
    """

    def __init__(
        self,
        strategy: Strategy,
        scenario: Scenario,
        encoder: Encoder,
        *,
        epoch_length: int,
        epoch: int = 0,
        seed: int = 0,
    ) -> None:
        self.strategy = strategy
        self.mining_seconds = 0.0
        known = _known_images(scenario.train, strategy.known_share)
        self._counts = _counts_by_row(known, scenario.train)
        self._class_names = scenario.train.class_names
        self._factors = scenario.oracle_factors if strategy.oracle else 1.0
        self.sampler = HardMiningSampler(len(scenario.train), epoch_length=epoch_length, seed=seed)
        self.sampler.set_epoch(epoch)
        self._miner = None
        if strategy.mining is not None:
            options = {"contexts": scenario.spec.contexts, **strategy.mining}
            index, val_index = scenario.index, scenario.val_index
            if strategy.whole_image:
                assert scenario.whole_image_index is not None
                assert scenario.whole_image_val_index is not None
                index, val_index = scenario.whole_image_index, scenario.whole_image_val_index
            self._miner = HardMiner(
                index,
                self.sampler,
                encoder=encoder,
                images=known,
                dataset_ids=scenario.train.ids,
                validation=ValidationSet(scenario.val, val_index),
                strict=True,
                **options,
            )

    @property
    def needs_validation(self) -> bool:
        """Whether validations change the weights."""
        return self._miner is not None or self.strategy.baseline is not None

    def update(
        self, ap: Floats, detections: Detections, *, epochs_done: float = 0, epochs: float = 0
    ) -> None:
        """Update the weights from a validation.

        Args:
            ap: (C,) AP of each class.
            detections: On the validation images.
            epochs_done: As in ``HardMiner.step``.
            epochs: As in ``HardMiner.step``.
        """
        if self._miner is not None:
            metrics = dict(zip(self._class_names, ap.tolist(), strict=True))
            done = self._miner.step(
                metrics, val_detections=detections, epochs_done=epochs_done, epochs=epochs
            )
            self.mining_seconds += done.seconds
        elif self.strategy.baseline is not None:
            self.sampler.set_weights(self.strategy.baseline(self._counts, ap) * self._factors)

    def draw_epoch(self) -> torch.Tensor:
        """Image rows of the next epoch."""
        return torch.tensor(list(self.sampler))


def _known_images(images: ImageSet, share: float) -> ImageSet:
    """The images whose labels are known: a random share, the same in every call."""
    if share == 1:
        return images
    order = np.random.default_rng(0).permutation(len(images))
    return images.subset(np.sort(order[: round(share * len(images))]))


def _counts_by_row(known: ImageSet, all_images: ImageSet) -> scipy.sparse.csr_matrix:
    """(N, C) label counts in the order of all images; 0 for images whose labels are not known."""
    rows = all_images.rows_of(known.ids)
    place = scipy.sparse.csr_matrix(
        (np.ones(len(rows)), (rows, np.arange(len(rows)))), shape=(len(all_images), len(rows))
    )
    return (place @ known.class_counts).tocsr()

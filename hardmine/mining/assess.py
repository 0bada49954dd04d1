"""What a validation shows: which classes are weak, and which queries follow from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.mining.confusion import Confusion, measure_confusion
from hardmine.mining.contexts import ContextAnswer, ContextNeed, measure_contexts
from hardmine.mining.need import Need, NeedRules, class_need
from hardmine.mining.queries import Queries, build_queries
from hardmine.records import ImageSet

Floats = npt.NDArray[np.float64]

_MIN_NEED = 1e-3  # less is rounding, not weakness


@dataclass(frozen=True)
class ValidationSet:
    """The validation images that detections are measured on.

    Attributes:
        images: Images with labels.
        index: An index of them, made with the same encoder as the training index. Needed to
            measure which class is weak in which context; None to measure confusion alone.
    """

    images: ImageSet
    index: Index | None = None


@dataclass(frozen=True)
class Patience:
    """How long C classes have been boosted without a rise in AP.

    Attributes:
        best: (C,) best AP seen, NaN if none yet.
        waited: (C,) int64 boosted rounds since AP last rose.
        boosted: (C,) bool, whether the last round boosted the class.
    """

    best: Floats
    waited: npt.NDArray[np.int64]
    boosted: npt.NDArray[np.bool_]

    @classmethod
    def fresh(cls, num_classes: int) -> Patience:
        """Before the first validation."""
        return cls(
            np.full(num_classes, np.nan),
            np.zeros(num_classes, np.int64),
            np.zeros(num_classes, bool),
        )

    def after(self, ap: Floats, *, min_gain: float = 0.005) -> Patience:
        """The state after a validation.

        A rise of ``min_gain`` over the best AP resets the count. A class that was not boosted
        gets one round back.

        Args:
            ap: (C,) AP, NaN unknown.
            min_gain: Smallest rise that counts.
        """
        better = (ap > self.best + min_gain) | (np.isnan(self.best) & ~np.isnan(ap))
        waited = np.where(self.boosted, self.waited + 1, np.maximum(self.waited - 1, 0))
        waited = np.where(np.isnan(ap), self.waited, np.where(better, 0, waited))
        return Patience(np.where(better, ap, self.best), waited, self.boosted)

    def factor(self, patience: int | None, *, decay: float = 0.5, minimum: float = 0.1) -> Floats:
        """(C,) factors for need: 1 during the first ``patience`` rounds, then halved each round."""
        if patience is None:
            return np.ones(len(self.best))
        late = np.maximum(self.waited - patience + 1, 0)
        return np.maximum(decay ** late.astype(np.float64), minimum)

    def to_state(self) -> dict[str, list[Any]]:
        """Plain values; unknown is None."""
        return {
            "best": to_numbers(self.best),
            "waited": self.waited.tolist(),
            "boosted": self.boosted.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, list[Any]]) -> Patience:
        """Read what ``to_state`` wrote."""
        return cls(
            from_numbers(state["best"]),
            np.array(state["waited"], np.int64),
            np.array(state["boosted"], bool),
        )


@dataclass(frozen=True)
class Assessment:
    """What one validation shows.

    Attributes:
        need: How weak each of C classes is.
        patience: Updated by this validation, but not yet by which classes are boosted.
        patience_factor: (C,) in [0, 1], the share of its need that patience leaves each class.
        class_need: (C,) in [0, 1], need × patience factor; 0 where that is negligible.
        queries: What to search for.
        confusion: Which classes the detector confuses; empty where that is not measured.
        context_answers: For each context that was measured, how an image answers it.
    """

    need: Need
    patience: Patience
    patience_factor: Floats
    class_need: Floats
    queries: Queries
    confusion: Confusion
    context_answers: Mapping[str, ContextAnswer]


def assess(
    metrics: Any,
    val_detections: Any,
    *,
    class_names: tuple[str, ...],
    previous: Need | None,
    patience: Patience,
    rules: NeedRules,
    contexts: Sequence[str],
    validation: ValidationSet | None,
    encoder: Encoder,
    synonyms: Sequence[Sequence[str]] = (),
) -> Assessment:
    """Find the weak classes of a validation and build the queries for them.

    Args:
        metrics: Per-class validation scores, in any form that ``read_scores`` reads.
        val_detections: What the detector found on the validation images; None if unknown.
        class_names: C names.
        previous: The need of the round before; None in the first.
        patience: How long each class has been boosted in vain, up to the round before.
        rules: Which classes count as weak.
        contexts: Contexts that every weak class is combined with.
        validation: The validation images; None where nothing is measured on them.
        encoder: The one that made the index.
        synonyms: For each class its other names; empty for none.
    """
    if val_detections is not None and validation is None:
        raise InputError(
            "val_detections were given, but not the images they belong to: "
            "make the miner with validation=ValidationSet(images, index)"
        )
    # 1. Need, reduced where boosts did not help.
    need = class_need(metrics, class_names, rules=rules, previous=previous)
    patience = patience.after(need.ap)
    factor = patience.factor(rules.patience)
    reduced = need.need * factor
    reduced[reduced < _MIN_NEED] = 0
    # 2. What the detections on the validation images add.
    confusion, in_context = Confusion(), ContextNeed()
    if val_detections is not None and validation is not None:
        confusion = measure_confusion(validation.images, val_detections, class_names)
        if contexts and validation.index is not None:
            in_context = _of_classes(
                measure_contexts(
                    validation.images, val_detections, validation.index, contexts, encoder
                ),
                class_names,
            )
    # 3. Queries.
    queries = build_queries(
        class_names,
        reduced,
        synonyms=synonyms,
        contexts=contexts,
        context_need={
            (name, context): value * factor[class_names.index(name)]
            for (name, context), value in in_context.need.items()
        },
        sizes=None if need.by_size is None else need.by_size * factor[:, None],
    )
    return Assessment(
        need, patience, factor, reduced, queries, confusion, in_context.context_answers
    )


def _of_classes(measured: ContextNeed, class_names: tuple[str, ...]) -> ContextNeed:
    """Leave out classes of the validation set that are not mined for."""
    known = {pair: need for pair, need in measured.need.items() if pair[0] in class_names}
    return replace(measured, need=known)


def to_numbers(values: Floats) -> list[float | None]:
    """Plain numbers; NaN becomes None."""
    return [None if np.isnan(value) else float(value) for value in values]


def from_numbers(values: list[float | None]) -> Floats:
    """Read what ``to_numbers`` wrote."""
    return np.array([np.nan if value is None else value for value in values], np.float64)

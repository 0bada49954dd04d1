"""What a validation found weak, and what to ask for because of it."""

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
from hardmine.mining.contexts import ContextNeed, measure_contexts
from hardmine.mining.need import Need, class_need
from hardmine.mining.patience import Patience
from hardmine.mining.queries import Queries, build_queries
from hardmine.mining.state import MinerState
from hardmine.records import ImageSet

_LEAST_NEED = 1e-3  # less is rounding, not weakness


@dataclass(frozen=True)
class Assessment:
    """What a validation led to.

    Attributes:
        need: How weak each of C classes is.
        kept: (C,) in [0, 1], the share of its need that patience leaves each class.
        wanted: (C,) in [0, 1], that share of the need; 0 where it is next to nothing.
        patience: After this validation; which classes are boosted is not in it yet.
        queries: What to ask.
        confusion: Which class the detector takes for which; nothing where that is not measured.
        answers: For the contexts that were measured, how an image answers; see ``ContextNeed``.
    """

    need: Need
    kept: npt.NDArray[np.float64]
    wanted: npt.NDArray[np.float64]
    patience: Patience
    queries: Queries
    confusion: Confusion
    answers: Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Judge:
    """Looks at validations; the same in every round.

    Attributes:
        class_names: C classes to judge.
        policy: Which of them are weak; see ``class_need``.
        need_options: More arguments of ``class_need``.
        patience: Rounds without a rise in AP after which a class's need fades; None for never.
        contexts: Conditions asked of every weak class.
        sizes: Whether weak sizes are asked for where the metrics tell them.
        images: Validation images with labels; None where nothing is measured on them.
        index: Of the validation images; None where contexts are not measured.
    """

    class_names: tuple[str, ...]
    policy: str
    need_options: Mapping[str, Any]
    patience: int | None
    contexts: tuple[str, ...]
    sizes: bool
    images: ImageSet | None
    index: Index | None

    def judge(
        self,
        metrics: Any,
        val_detections: Any,
        before: MinerState,
        encoder: Encoder,
        synonyms: Sequence[Sequence[str]],
    ) -> Assessment:
        """Say what is weak after a validation, and ask for it.

        Args:
            metrics: What validation said of each class, in any form that ``read_scores`` reads.
            val_detections: What the detector found on the validation images; None if unknown.
            before: What the last round left.
            encoder: Of the index.
            synonyms: For each class its other names; empty for none.
        """
        if val_detections is not None and self.images is None:
            raise InputError("val_detections need HardMiner(val_images=...), whose they are")
        need = class_need(
            metrics,
            self.class_names,
            policy=self.policy,
            previous=before.need,
            **self.need_options,
        )
        patience = before.patience.seeing(need.ap)
        kept = patience.factor(self.patience)
        wanted = need.need * kept
        wanted[wanted < _LEAST_NEED] = 0
        measured = self._measure_contexts(val_detections, encoder)
        queries = build_queries(
            self.class_names,
            wanted,
            synonyms=synonyms,
            contexts=self.contexts,
            context_need={
                pair: value * kept[self.class_names.index(pair[0])]
                for pair, value in measured.need.items()
            },
            sizes=need.by_size * kept[:, None] if self.sizes and need.by_size is not None else None,
        )
        confusion = self._measure_confusion(val_detections)
        return Assessment(need, kept, wanted, patience, queries, confusion, measured.answers)

    def _measure_confusion(self, val_detections: Any) -> Confusion:
        if val_detections is None or self.images is None:
            return Confusion()
        return measure_confusion(self.images, val_detections, self.class_names)

    def _measure_contexts(self, val_detections: Any, encoder: Encoder) -> ContextNeed:
        told = val_detections is not None and self.contexts
        if not told or self.images is None or self.index is None:
            return ContextNeed()
        measured = measure_contexts(self.images, val_detections, self.index, self.contexts, encoder)
        known = {pair: need for pair, need in measured.need.items() if pair[0] in self.class_names}
        return replace(measured, need=known)

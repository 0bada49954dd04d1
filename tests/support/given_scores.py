"""Trust and targets of scores that a test gives, in place of those of an index."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from hardmine.mining.evidence import EvidenceCache
from hardmine.mining.labels import Labels
from hardmine.mining.queries import Queries
from hardmine.mining.targets import TargetRules, Targets, split_targets
from hardmine.mining.trust import Trust, measure_trust


class GivenScores:
    """Looks scores up by their only phrase."""

    version = "always the same"

    def __init__(self, rows: dict[str, np.ndarray]) -> None:
        self._rows = rows

    def each(self, phrases: Sequence[tuple[str, ...]]) -> Iterator[np.ndarray]:
        for (text,) in phrases:
            yield self._rows[text]


class Case:
    """Q queries whose scores are given.

    Args:
        scores: (Q, N).
        class_rows: (Q,) class of each query.
        labels: Of the images.
        contexts: Of the queries; none if empty.
        base_scores: (Q, N) similarity to the name of each query's class.
    """

    def __init__(
        self,
        scores: np.ndarray,
        class_rows: np.ndarray,
        labels: Labels,
        *,
        contexts: tuple[str, ...] = (),
        base_scores: np.ndarray | None = None,
    ) -> None:
        rows = {f"query {place}": row for place, row in enumerate(scores)}
        if base_scores is not None:
            rows |= {
                f"class {row}": base for row, base in zip(class_rows, base_scores, strict=True)
            }
        count = len(scores)
        self.labels, self.contexts = labels, contexts or ("",) * count
        self.queries = Queries(
            tuple((f"query {place}",) for place in range(count)),
            class_rows,
            self.contexts,
            np.ones(count),
        )
        names = [(f"class {row}",) for row in range(labels.present.shape[1])]
        self.cache = EvidenceCache(GivenScores(rows), labels, names)

    def trust(self) -> Trust:
        return measure_trust(self.cache.of(self.queries))

    def split(self, trust: Trust, *, rules: TargetRules | None = None) -> Targets:
        chosen = rules or TargetRules()
        return split_targets(
            self.cache.of(self.queries, missing=chosen.missing, pool_share=chosen.pool_share),
            self.queries.class_rows,
            self.labels,
            trust,
            contexts=self.contexts,
        )

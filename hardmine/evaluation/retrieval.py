"""How well an index answers class names: the protocol of the Cluster-CLIP paper."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.evaluation.ranking import (
    Floats,
    average_precision,
    average_precision_at,
    rank_hits,
    ranking_order,
    recall_at,
)
from hardmine.evaluation.relevance import Relevance
from hardmine.index.base import Index

# Classes scored at once: bounds memory to this many rows of N scores and their sort keys.
CLASS_CHUNK = 64


@dataclass(frozen=True)
class RankingScores:
    """Quality of C rankings; NaN for a class that no ranked image shows.

    Attributes:
        num_relevant: (C,) relevant images.
        ap: (C,) over the whole ranking.
        ap_at_k: (C,) over the first k, divided by min(relevant, k): the one that is quoted.
        ap_at_k_found: (C,) divided by the hits among the first k.
        ap_at_k_relevant: (C,) divided by all relevant.
        recall_at: For some depths, (C,) share of the relevant images found.
        draws: Means over classes of ``ap_at_k`` and ``ap`` on resampled images; empty if the
            bootstrap was off.
    """

    num_relevant: npt.NDArray[np.int64]
    ap: Floats
    ap_at_k: Floats
    ap_at_k_found: Floats
    ap_at_k_relevant: Floats
    recall_at: dict[int, Floats] = field(default_factory=dict)
    draws: dict[str, Floats] = field(default_factory=dict)

    def mean(self, name: str = "ap_at_k", classes: npt.NDArray[np.bool_] | None = None) -> float:
        """Mean over the classes that have relevant images; NaN if none has."""
        values = getattr(self, name)
        values = values if classes is None else values[classes]
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    def interval(self, name: str, share: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the mean; None if the bootstrap was off."""
        if name not in self.draws:
            return None
        low, high = np.nanquantile(self.draws[name], [(1 - share) / 2, (1 + share) / 2])
        return float(low), float(high)


def evaluate(
    index: Index,
    image_ids: npt.ArrayLike,
    text_vectors: npt.NDArray[np.float32],
    relevances: Sequence[Relevance],
    *,
    k: int = 50,
    recall_depths: Sequence[int] = (),
    bootstrap: int = 0,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[RankingScores]:
    """Rank the images of an index by each of C texts and measure the rankings.

    Args:
        index: Where the scores come from.
        image_ids: (N,) the images to rank, all in the index, in the order of the relevances' rows.
        text_vectors: (C, D).
        relevances: What is right: each gives one result from the same scores, such as all sizes
            and small-medium.
        k: Depth of AP@k.
        recall_depths: Depths at which recall is wanted too.
        bootstrap: How often to resample the images for intervals; 0 for none.
        seed: Of the resampling.
        progress: Called with (classes done, C).

    Raises:
        InputError: If an image is not in the index or the counts do not fit.
    """
    rows = index.rows_of(image_ids)
    if (rows < 0).any():
        missing = np.asarray(image_ids)[rows < 0][:3].tolist()
        raise InputError(
            f"{int((rows < 0).sum())} of {len(rows)} images are not in the index (such as "
            f"{missing}); was it built from these images? rank only those that are in it"
        )
    num_classes = len(text_vectors)
    for relevance in relevances:
        if relevance.relevant.shape != (len(rows), num_classes):
            raise InputError(
                f"relevance must be {(len(rows), num_classes)} (images, queries), "
                f"got {relevance.relevant.shape}"
            )
    samples = np.random.default_rng(seed).integers(len(rows), size=(bootstrap, len(rows)))
    partial: list[list[RankingScores]] = [[] for _ in relevances]
    for classes in _chunks(num_classes):
        scores = index.scores(text_vectors[classes])[:, rows]
        for results, relevance in zip(partial, relevances, strict=True):
            relevant, ignored = relevance.block(classes)
            results.append(_measure(scores, relevant, ignored, k, recall_depths, samples))
        if progress is not None:
            progress(min(classes.stop, num_classes), num_classes)
    return [_join(results) for results in partial]


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, max(count, 1), CLASS_CHUNK):
        yield slice(start, min(start + CLASS_CHUNK, count))


def _measure(
    scores: npt.NDArray[np.float32],
    relevant: npt.NDArray[np.bool_],
    ignored: npt.NDArray[np.bool_] | None,
    k: int,
    recall_depths: Sequence[int],
    samples: npt.NDArray[np.int64],
) -> RankingScores:
    hits = rank_hits(scores, relevant, ignored)
    draws: dict[str, Floats] = {}
    if len(samples):
        draws = _resample(ranking_order(scores, relevant, ignored), hits, samples, k)
    return RankingScores(
        num_relevant=hits.sum(axis=1),
        ap=average_precision(hits),
        ap_at_k=average_precision_at(hits, k),
        ap_at_k_found=average_precision_at(hits, k, "found"),
        ap_at_k_relevant=average_precision_at(hits, k, "relevant"),
        recall_at={depth: recall_at(hits, depth) for depth in recall_depths},
        draws=draws,
    )


def _resample(
    order: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    samples: npt.NDArray[np.int64],
    k: int,
) -> dict[str, Floats]:
    """AP of each class on each resampled set of images: name -> (draws, c)."""
    values = {name: np.empty((len(samples), len(order))) for name in ("ap_at_k", "ap")}
    place = np.empty(order.shape[1], np.int32)
    for column, (ranking, ranked_hits) in enumerate(zip(order, hits, strict=True)):
        place[ranking] = np.arange(len(ranking))
        # The places of the images drawn, in order: an image drawn twice stands there twice.
        drawn_hits = ranked_hits[np.sort(place[samples], axis=1)]
        values["ap_at_k"][:, column] = average_precision_at(drawn_hits, k)
        values["ap"][:, column] = average_precision(drawn_hits)
    return values


def _join(parts: Sequence[RankingScores]) -> RankingScores:
    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])

    draws = {}
    for name in parts[0].draws:
        by_class = np.concatenate([part.draws[name] for part in parts], axis=1)
        known = ~np.isnan(by_class)
        total = np.where(known, by_class, 0).sum(axis=1)
        draws[name] = total / np.maximum(known.sum(axis=1), 1)
    return RankingScores(
        num_relevant=joined("num_relevant").astype(np.int64),
        ap=joined("ap"),
        ap_at_k=joined("ap_at_k"),
        ap_at_k_found=joined("ap_at_k_found"),
        ap_at_k_relevant=joined("ap_at_k_relevant"),
        recall_at={
            depth: np.concatenate([part.recall_at[depth] for part in parts])
            for depth in parts[0].recall_at
        },
        draws=draws,
    )

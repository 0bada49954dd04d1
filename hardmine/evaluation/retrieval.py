"""Rank the images of an index by text and measure the rankings."""

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

# Queries scored at once: memory holds this many rows of N scores and their sort keys.
QUERY_CHUNK = 64


@dataclass(frozen=True)
class RankingScores:
    """Metrics of C rankings; NaN for a query without a relevant image.

    Attributes:
        num_relevant: (C,) relevant images.
        ap: (C,) AP over the whole ranking.
        ap_at_k: (C,) AP over the first k, divided by min(relevant, k): the usual definition.
        ap_at_k_found: (C,) divided by the hits among the first k.
        ap_at_k_relevant: (C,) divided by all relevant.
        recall_at: By depth, (C,) share of the relevant images found.
        samples: (B,) means over queries of ``ap_at_k`` and of ``ap`` on B bootstrap samples of the
            images; empty without bootstrap.
    """

    num_relevant: npt.NDArray[np.int64]
    ap: Floats
    ap_at_k: Floats
    ap_at_k_found: Floats
    ap_at_k_relevant: Floats
    recall_at: dict[int, Floats] = field(default_factory=dict)
    samples: dict[str, Floats] = field(default_factory=dict)

    def mean(self, name: str = "ap_at_k", chosen: npt.NDArray[np.bool_] | None = None) -> float:
        """Mean over the (chosen) queries that have relevant images; NaN if none has."""
        values = getattr(self, name)
        values = values if chosen is None else values[chosen]
        known = values[~np.isnan(values)]
        return float(known.mean()) if len(known) else float("nan")

    def interval(self, name: str, share: float = 0.95) -> tuple[float, float] | None:
        """Bootstrap interval of the mean; None without bootstrap."""
        if name not in self.samples:
            return None
        low, high = np.nanquantile(self.samples[name], [(1 - share) / 2, (1 + share) / 2])
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
        index: Holds the images.
        image_ids: (N,) the images to rank, in the order of the relevances' rows.
        text_vectors: (C, D).
        relevances: Each gives one result from the same scores, e.g. all sizes and small-medium.
        k: Depth of AP@k.
        recall_depths: Depths at which to measure recall.
        bootstrap: Number of bootstrap samples of the images for intervals; 0 for no intervals.
        seed: Seed of the bootstrap.
        progress: Called with (queries done, C).

    Raises:
        InputError: If an image is not in the index or the counts do not fit.
    """
    rows = index.rows_of(image_ids)
    if (rows < 0).any():
        missing = np.asarray(image_ids)[rows < 0][:3].tolist()
        raise InputError(
            f"{int((rows < 0).sum())} of {len(rows)} images are not in the index (such as "
            f"{missing}); was it built from these images? Rank only images that are in it"
        )
    num_queries = len(text_vectors)
    for relevance in relevances:
        if relevance.relevant.shape != (len(rows), num_queries):
            raise InputError(
                f"relevance must be {(len(rows), num_queries)} (images, queries), "
                f"got {relevance.relevant.shape}"
            )
    resampled = np.random.default_rng(seed).integers(len(rows), size=(bootstrap, len(rows)))
    partial: list[list[RankingScores]] = [[] for _ in relevances]
    for queries in _chunks(num_queries):
        scores = index.scores(text_vectors[queries])[:, rows]
        for results, relevance in zip(partial, relevances, strict=True):
            relevant, ignored = relevance.block(queries)
            results.append(_measure(scores, relevant, ignored, k, recall_depths, resampled))
        if progress is not None:
            progress(min(queries.stop, num_queries), num_queries)
    return [_join(results) for results in partial]


def _chunks(count: int) -> Iterator[slice]:
    for start in range(0, max(count, 1), QUERY_CHUNK):
        yield slice(start, min(start + QUERY_CHUNK, count))


def _measure(
    scores: npt.NDArray[np.float32],
    relevant: npt.NDArray[np.bool_],
    ignored: npt.NDArray[np.bool_] | None,
    k: int,
    recall_depths: Sequence[int],
    resampled: npt.NDArray[np.int64],
) -> RankingScores:
    hits = rank_hits(scores, relevant, ignored)
    samples: dict[str, Floats] = {}
    if len(resampled):
        samples = _resample(ranking_order(scores, relevant, ignored), hits, resampled, k)
    return RankingScores(
        num_relevant=hits.sum(axis=1),
        ap=average_precision(hits),
        ap_at_k=average_precision_at(hits, k),
        ap_at_k_found=average_precision_at(hits, k, "found"),
        ap_at_k_relevant=average_precision_at(hits, k, "relevant"),
        recall_at={depth: recall_at(hits, depth) for depth in recall_depths},
        samples=samples,
    )


def _resample(
    order: npt.NDArray[np.int64],
    hits: npt.NDArray[np.bool_],
    resampled: npt.NDArray[np.int64],
    k: int,
) -> dict[str, Floats]:
    """AP of each query on each bootstrap sample of the images: name -> (B, c)."""
    values = {name: np.empty((len(resampled), len(order))) for name in ("ap_at_k", "ap")}
    place = np.empty(order.shape[1], np.int32)
    for column, (ranking, ranked_hits) in enumerate(zip(order, hits, strict=True)):
        place[ranking] = np.arange(len(ranking))
        # Places of the sampled images, in ranked order; an image sampled twice has its place twice.
        sampled_hits = ranked_hits[np.sort(place[resampled], axis=1)]
        values["ap_at_k"][:, column] = average_precision_at(sampled_hits, k)
        values["ap"][:, column] = average_precision(sampled_hits)
    return values


def _join(parts: Sequence[RankingScores]) -> RankingScores:
    def joined(name: str) -> npt.NDArray[np.float64]:
        return np.concatenate([getattr(part, name) for part in parts])

    samples = {}
    for name in parts[0].samples:
        by_query = np.concatenate([part.samples[name] for part in parts], axis=1)
        known = ~np.isnan(by_query)
        total = np.where(known, by_query, 0).sum(axis=1)
        samples[name] = total / np.maximum(known.sum(axis=1), 1)
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
        samples=samples,
    )

"""Scans a store on the CPU for some queries, for the best k images or for all scores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block, iter_blocks, max_by_image
from hardmine.index.search.candidates import CandidateFilter
from hardmine.index.search.kernels import max_over_middle
from hardmine.index.search.product import Product, search_dtype
from hardmine.index.search.threads import run_in_threads
from hardmine.index.search.top_k import TopK
from hardmine.index.storage.store import Store

# Scores that a thread holds at once, queries x regions: 2 M float32 are 8 MB.
_SCORES = 2_000_000
# Smallest block that is worth a thread of its own, in regions.
_MIN_REGIONS = 4096
# Candidates kept before they are scored exactly, over all queries; 26 bytes each.
_MAX_PENDING = 1_000_000
# If queries x k is at least 8192, one image in 50, at most 4096, is scored first. The sample holds
# its share of the best k, give or take chance: 4 standard deviations more are allowed for.
_MIN_RESULTS = 8192
_SAMPLE_EVERY, _MAX_SAMPLE = 50, 4096
_DEVIATIONS = 4


def find_best(
    store: Store,
    queries: npt.NDArray[np.float32],
    k: int,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    dtype: torch.dtype | None = None,
    guess: bool = True,
) -> TopK:
    """Find the k best images of each query.

    Args:
        store: The images.
        queries: (C, D), at least one.
        k: Number of images.
        rows: Search only these rows, unique; all if None.
        dtype: What to multiply in; ``search_dtype`` chooses if None.
        guess: Whether to guess a threshold from a sample of the images, which makes the search
            faster. Queries for which it was too high are searched again without a guess.
    """
    if dtype is None:
        int8 = any(shard.tensor.dtype == torch.int8 for shard in store.shards[:1])
        dtype = search_dtype(store.dim, len(queries), int8=int8)
    product = Product(queries, dtype, repeatable=False)
    best = TopK(store, queries, k)
    candidates = CandidateFilter(
        best,
        absolute=product.absolute,
        relative=product.relative,
        max_pending=_MAX_PENDING,
        guess=_guess_threshold(store, product, k, rows) if guess else None,
    )
    _scan(store, product, rows, candidates.offer)
    candidates.rescore()
    again = np.flatnonzero(~candidates.complete)
    if len(again):
        other = find_best(store, queries[again], k, rows, dtype=dtype, guess=False)
        best.replace(again, other)
    return best


def score_images(
    store: Store,
    queries: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
) -> None:
    """Write float32 scores of consecutive image rows to ``out``, (C, n); skip empty images.

    A query scores the same to the bit alone and beside others.
    """
    # A product with a single vector would add up in another order.
    several = queries.repeat(2, axis=0) if len(queries) == 1 else queries

    def write(block: Block, scores: torch.Tensor) -> None:
        out[:, block.rows - rows[0]] = _scores_of_images(block, scores).T[: len(out)]

    _scan(store, Product(several, torch.float32), rows, write)


def _guess_threshold(
    store: Store, product: Product, k: int, rows: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32] | None:
    """Guess a lower bound of each query's k-th best score from a sample of the images."""
    total = len(store) if rows is None else len(rows)
    count = min(total // _SAMPLE_EVERY, _MAX_SAMPLE)
    if count == 0 or k * product.num_queries < _MIN_RESULTS:
        return None
    expected = k * count / total
    rank = math.ceil(expected + _DEVIATIONS * math.sqrt(expected))
    if rank > count:
        return None
    chosen = np.random.default_rng(0).choice(total, count, replace=False)
    sample: list[npt.NDArray[np.float32]] = []

    def collect(block: Block, scores: torch.Tensor) -> None:
        sample.append(_scores_of_images(block, scores))

    _scan(store, product, chosen if rows is None else rows[chosen], collect)
    guess: npt.NDArray[np.float32] = np.partition(np.concatenate(sample), -rank, axis=0)[-rank]
    return guess


def _scan(
    store: Store,
    product: Product,
    rows: npt.NDArray[np.int64] | None,
    visit: Callable[[Block, torch.Tensor], None],
) -> None:
    """Call ``visit`` with each block and its scores by region, (r, C), in several threads."""

    def work(blocks: Iterator[Block]) -> None:
        multiply = product.with_own_buffers()
        for block in blocks:
            visit(block, multiply(block))

    count = store.num_regions if rows is None else int(store.counts[rows].sum())
    # At least four blocks per thread, so that threads finish at about the same time.
    fair = max(count // (4 * torch.get_num_threads()), _MIN_REGIONS)
    max_regions = max(min(_SCORES // product.num_queries, fair), 1)
    blocks = iter_blocks(store, max_regions, rows)
    run_in_threads(work, blocks, max_threads=count // max_regions)


def _scores_of_images(block: Block, scores: torch.Tensor) -> npt.NDArray[np.float32]:
    """Maximum over each image's regions: (r, C) to (n, C); -inf for an image without any."""
    each = block.regions_each
    if each:
        return np.asarray(max_over_middle(scores.view(len(block), each, -1)).float().numpy())
    return max_by_image(scores.float().numpy(), block.offsets)

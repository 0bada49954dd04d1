"""Goes through a whole store for some queries: every score, or the best."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch

from hardmine.index.search.blocks import Block, iter_blocks, max_by_image
from hardmine.index.search.candidates import CandidateFilter
from hardmine.index.search.kernels import max_over_middle
from hardmine.index.search.product import Product
from hardmine.index.search.threads import run_in_threads
from hardmine.index.search.top_k import TopK
from hardmine.index.storage.store import Store

# Scores a thread holds at once, queries x regions: 2 M float32 are 8 MB.
_SCORES = 2_000_000
# Regions that are worth a thread's while.
_REGIONS = 4096
# Regions that wait for their exact score, over all queries; 26 bytes each.
_WAITING = 1_000_000
# Where queries times k are many, one image in 50, but not more than 4096 ...
_SHARE, _MOST, _MANY = 50, 4096, 8192
# ... are looked at first, and as many of the best k are expected there as chance has it, and so
# many standard deviations more.
_DEVIATIONS = 4


def find_best(
    store: Store,
    queries: npt.NDArray[np.float32],
    k: int,
    rows: npt.NDArray[np.int64] | None = None,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device,
    guessing: bool = True,
) -> TopK:
    """Find the k best images of each query.

    Args:
        store: Where the images are.
        queries: (C, D), at least one.
        k: How many images.
        rows: Among these only, unique; None for all.
        dtype: What to multiply in; None takes the fastest.
        device: Where to multiply.
        guessing: Whether a few images may tell which scores are worth looking at. What they do
            not foresee is searched for again, without a guess.
    """
    product = Product(queries, dtype, device)
    best = TopK(store, queries, k)
    candidates = CandidateFilter(
        best,
        absolute=product.absolute,
        relative=product.relative,
        patience=_WAITING,
        guess=_guess(store, product, k, rows) if guessing else None,
    )
    _look_at_all(store, product, rows, candidates.offer)
    candidates.settle()
    again = np.flatnonzero(~candidates.proven)
    if len(again):
        other = find_best(
            store, queries[again], k, rows, dtype=dtype, device=device, guessing=False
        )
        best.put(again, other)
    return best


def score_images(
    store: Store,
    queries: npt.NDArray[np.float32],
    rows: npt.NDArray[np.int64],
    out: npt.NDArray[np.float32],
    *,
    device: torch.device,
) -> None:
    """Write the float32 scores of consecutive image rows, (C, n); not those without regions."""

    def look(block: Block, scores: torch.Tensor) -> None:
        out[:, block.rows - rows[0]] = _scores_of_images(block, scores).T

    _look_at_all(store, Product(queries, torch.float32, device), rows, look)


def _guess(
    store: Store, product: Product, k: int, rows: npt.NDArray[np.int64] | None
) -> npt.NDArray[np.float32] | None:
    """Guess the k-th best score of each query from some of the images, rather too low."""
    total = len(store) if rows is None else len(rows)
    count = min(total // _SHARE, _MOST)
    if count == 0 or k * product.num_queries < _MANY:
        return None
    expected = k * count / total
    rank = math.ceil(expected + _DEVIATIONS * math.sqrt(expected))
    if rank > count:
        return None
    chosen = np.random.default_rng(0).choice(total, count, replace=False)
    sample: list[npt.NDArray[np.float32]] = []

    def look(block: Block, scores: torch.Tensor) -> None:
        sample.append(_scores_of_images(block, scores))

    _look_at_all(store, product, chosen if rows is None else rows[chosen], look)
    guess: npt.NDArray[np.float32] = np.partition(np.concatenate(sample), -rank, axis=0)[-rank]
    return guess


def _look_at_all(
    store: Store,
    product: Product,
    rows: npt.NDArray[np.int64] | None,
    look: Callable[[Block, torch.Tensor], None],
) -> None:
    """Call ``look`` with each block and its scores by region, (r, C), in several threads."""

    def work(blocks: Iterator[Block]) -> None:
        mine = product.with_own_buffers()
        for block in blocks:
            look(block, mine(block))

    count = store.num_regions if rows is None else int(store.counts[rows].sum())
    # Four blocks a thread at least, so that the last one to finish does not keep the others.
    fair = max(count // (4 * torch.get_num_threads()), _REGIONS)
    most = max(min(_SCORES // product.num_queries, fair), 1)
    threads = count // most if product.device.type == "cpu" else 1
    run_in_threads(work, iter_blocks(store, most, rows), most=threads)


def _scores_of_images(block: Block, scores: torch.Tensor) -> npt.NDArray[np.float32]:
    """Maximum over each image's regions: (r, C) to (n, C); -inf for an image without any."""
    each = block.regions_each
    if each:
        return np.asarray(max_over_middle(scores.view(len(block), each, -1)).float().numpy())
    return max_by_image(scores.float().numpy(), block.offsets)

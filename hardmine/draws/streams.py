"""The draws of an epoch as a pure function of weights, seed and epoch."""

from __future__ import annotations

import functools
import math
import random

import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError

# The golden ratio's fractional part in units of 2^-64: its multiples fill [0, 1) as evenly as any
# sequence can, so the rounding of an image's count evens out over epochs.
_GOLDEN = 0x9E3779B97F4A7C15


def epoch_stream(
    weights: torch.Tensor | None,
    num_images: int,
    length: int,
    *,
    seed: int,
    epoch: int,
    shuffle: bool = True,
) -> torch.Tensor:
    """The draws of one epoch, over all ranks: (length,) int32 image rows.

    Args:
        weights: (num_images,) float64; None means equal.
        num_images: N.
        length: Draws.
        seed: With ``epoch``, fixes rounding and order.
        epoch: From 0.
        shuffle: Whether to shuffle; else ascending. Repeats of one image are spread over the
            epoch. An epoch that draws each image once is torch's seeded shuffle.
    """
    counts = None
    if weights is not None or num_images != length:
        counts = _epoch_counts(weights, num_images, length, seed=seed, epoch=epoch)
        if num_images == length and bool((counts == 1).all()):
            counts = None  # each image once
    if not shuffle:
        rows = torch.arange(num_images, dtype=torch.int32)
        return rows if counts is None else torch.repeat_interleave(rows, counts, output_size=length)
    generator = torch.Generator().manual_seed(seed + epoch)
    if counts is None:
        return torch.randperm(length, generator=generator, dtype=torch.int32)
    return _spread(counts, length, generator)


def _epoch_counts(
    weights: torch.Tensor | None, num_images: int, length: int, *, seed: int, epoch: int
) -> torch.Tensor:
    """(N,) int32, how often each image comes in an epoch.

    The rows are taken in an order that the seed fixes. In the order of the data set the comb of
    draws would fall into step with it: of rows that alternate between two cameras, half an epoch
    would show one camera alone.
    """
    if weights is None:
        weights = torch.ones(num_images, dtype=torch.float64)
    phase = (random.Random(seed).getrandbits(64) + epoch * _GOLDEN) % 2**64
    order = _row_order(num_images, seed)
    counts = torch.empty(num_images, dtype=torch.int32)
    counts[order] = draw_counts(weights[order], length, phase=phase)
    return counts


@functools.lru_cache(maxsize=2)
def _row_order(num_images: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(num_images, generator=generator)


def _spread(counts: torch.Tensor, length: int, generator: torch.Generator) -> torch.Tensor:
    """Shuffle so that the k draws of an image lie 1 / k of an epoch apart.

    Draw j of an image comes at the time (j + u) / k of the epoch, with u uniform in [0, 1) for
    each image: any one draw is as likely anywhere, and no batch holds an image twice unless it
    must.
    """
    rows = torch.repeat_interleave(
        torch.arange(len(counts), dtype=torch.int32), counts, output_size=length
    )
    times = torch.arange(length, dtype=torch.float64)
    times -= (torch.cumsum(counts, 0) - counts).index_select(0, rows)
    times += torch.rand(len(counts), generator=generator, dtype=torch.float64).index_select(0, rows)
    times /= counts.index_select(0, rows)
    return rows.index_select(0, _sorted_places(times.numpy()))


def _sorted_places(times: npt.NDArray[np.float64]) -> torch.Tensor:
    """The stable order of times, by a sort of NumPy's that is several times as fast and not stable.

    No two times are equal but by a rare chance, and without equal ones there is one order.
    """
    order = np.argsort(times)
    ascending = times[order]
    if (ascending[1:] == ascending[:-1]).any():
        order = np.argsort(times, kind="stable")
    return torch.from_numpy(order)


def draw_counts(weights: torch.Tensor, draws: int, *, phase: int = 0) -> torch.Tensor:
    """Share draws among images by systematic resampling: (N,) int32 counts that sum to ``draws``.

    Each count is the floor or the ceiling of ``draws * weights / weights.sum()``. The sums are
    of integers, so every machine and any number of threads gives the same counts.

    Args:
        weights: (N,) float64, finite, not negative, not all zero.
        draws: How many images to draw.
        phase: Where the comb of draws begins, in units of 2^-64 of a draw.

    >>> draw_counts(torch.tensor([1.0, 2.0, 1.0], dtype=torch.float64), 6, phase=0).tolist()
    [2, 3, 1]
    """
    # 1. Weights as integers; N of them sum to less than 2^61. A power of two as the scale keeps
    #    whole weights (and halves, quarters ...) exact.
    bits = min(52, 61 - len(weights).bit_length())
    exponent = math.frexp(float(weights.max()))[1]
    edges = torch.mul(weights, 2.0 ** min(bits - exponent, 1023))
    if bits - exponent > 1023:  # weights below 1e-292
        edges *= 2.0 ** (bits - exponent - 1023)
    edges = edges.round_().long()
    torch.cumsum(edges, 0, out=edges)
    total = int(edges[-1])
    if total == 0:
        raise InputError("weights must not all be zero")
    # 2. Draw j falls at (j + phase) * total / draws, so the draws below an edge are the integers
    #    below edge * draws / total - phase. Floating point tells unless that is almost an integer.
    shift = phase * total >> 64
    below = edges.double().mul_(draws / total).sub_(shift / total)
    unsure = below.round().sub_(below).abs_().lt(1e-5).nonzero().squeeze(1)
    place = below[unsure].round_().long()
    counts = below.ceil_().to(torch.int32)
    if len(unsure):
        # 3. There integers decide: floor((j * total + shift) / draws) < edge, kept below 2^63 by
        #    dividing j * (total // draws) and j * (total % draws) apart.
        whole, rest = divmod(total, draws)
        at = place * whole + torch.div(place * rest + shift, draws, rounding_mode="floor")
        counts[unsure] = (place + (at < edges[unsure])).to(torch.int32)
    counts[1:] -= counts[:-1].clone()
    return counts

"""The draws of an epoch as a pure function of weights, seed and epoch."""

from __future__ import annotations

import math
import random

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
        shuffle: Whether to shuffle; else ascending.
    """
    if weights is None and num_images == length:
        draws = None  # each image once
    else:
        if weights is None:
            weights = torch.ones(num_images, dtype=torch.float64)
        phase = (random.Random(seed).getrandbits(64) + epoch * _GOLDEN) % 2**64
        counts = draw_counts(weights, length, phase=phase)
        draws = torch.repeat_interleave(counts, output_size=length)
    if not shuffle:
        return torch.arange(length, dtype=torch.int32) if draws is None else draws
    generator = torch.Generator().manual_seed(seed + epoch)
    order = torch.randperm(length, generator=generator, dtype=torch.int32)
    return order if draws is None else draws.index_select(0, order)


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
    edges = torch.mul(weights, 2.0 ** min(bits - exponent, 1023)).round_().long()
    torch.cumsum(edges, 0, out=edges)
    total = int(edges[-1])
    if total == 0:
        raise InputError("weights must not all be zero (or below 1e-308)")
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

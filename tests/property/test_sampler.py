"""What holds for any weights, lengths, ranks and places to stop."""

from __future__ import annotations

import math
from collections import Counter
from fractions import Fraction
from itertools import islice

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardmine.draws import draw_counts
from hardmine.sampler import HardMiningSampler

weight = st.one_of(
    st.sampled_from([0.0, 0.1, 0.3, 1.0, 1 / 3, 4.0]),
    st.floats(1e-6, 1e6, allow_subnormal=False),
)
weight_lists = st.lists(weight, min_size=1, max_size=60).filter(any)


@given(weight_lists, st.integers(1, 400), st.integers(0, 2**64 - 1))
def test_every_count_is_the_floor_or_the_ceiling_of_its_expectation(
    weights: list[float], draws: int, phase: int
) -> None:
    counts = draw_counts(torch.tensor(weights, dtype=torch.float64), draws, phase=phase).tolist()
    assert sum(counts) == draws
    total = sum(map(Fraction, weights))
    for count, value in zip(counts, weights, strict=True):
        expected = draws * Fraction(value) / total
        # Weights are kept to 52 bits below the largest; nearer to a whole number none can tell.
        slack = Fraction(draws * len(weights), 2**50)
        assert math.floor(expected - slack) <= count <= math.ceil(expected + slack)
        assert value > 0 or count == 0


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=40).filter(any),
    st.integers(1, 7),
    st.integers(0, 2**64 - 1),
)
def test_whole_weights_are_exact(weights: list[int], times: int, phase: int) -> None:
    counts = draw_counts(
        torch.tensor(weights, dtype=torch.float64), times * sum(weights), phase=phase
    )
    assert counts.tolist() == [times * value for value in weights]


@given(weight_lists, st.integers(1, 200), st.integers(1, 8), st.booleans(), st.integers(0, 20))
def test_ranks_share_the_stream_out(
    weights: list[float], length: int, world_size: int, shuffle: bool, epoch: int
) -> None:
    def drawn(rank: int, size: int) -> list[int]:
        sampler = HardMiningSampler(
            len(weights), epoch_length=length, shuffle=shuffle, rank=rank, world_size=size
        )
        sampler.set_weights(weights)
        sampler.set_epoch(epoch)
        return list(sampler)

    stream = drawn(0, 1)
    parts = [drawn(rank, world_size) for rank in range(world_size)]
    assert len({len(part) for part in parts}) == 1
    together = [image for row in zip(*parts, strict=True) for image in row]
    assert together[:length] == stream
    # What is left over continues the stream from its own start.
    assert together[length:] == (stream * world_size)[: len(together) - length]


@given(weight_lists, st.integers(1, 200), st.integers(1, 4), st.data())
@settings(max_examples=60)
def test_a_resumed_stream_is_the_unbroken_one(
    weights: list[float], length: int, world_size: int, data: st.DataObject
) -> None:
    rank = data.draw(st.integers(0, world_size - 1))

    def sampler() -> HardMiningSampler:
        return HardMiningSampler(
            len(weights), epoch_length=length, rank=rank, world_size=world_size
        )

    unbroken = sampler()
    unbroken.set_weights(weights)
    running = iter(unbroken)
    list(islice(running, data.draw(st.integers(0, len(unbroken)))))
    again = sampler()
    again.load_state_dict(unbroken.state_dict())
    assert list(again) == list(running)
    assert list(again) == list(unbroken)


@given(weight_lists, st.integers(1, 100))
@settings(max_examples=40)
def test_shuffling_changes_the_order_alone(weights: list[float], length: int) -> None:
    streams = []
    for shuffle in (True, False):
        sampler = HardMiningSampler(len(weights), epoch_length=length, shuffle=shuffle)
        sampler.set_weights(weights)
        streams.append(list(sampler))
    assert Counter(streams[0]) == Counter(streams[1])
    assert streams[1] == sorted(streams[1])


@given(st.floats(1e-9, 1e9), st.integers(1, 300), st.integers(0, 50))
def test_any_equal_weights_give_each_image_once(value: float, num_images: int, epoch: int) -> None:
    sampler = HardMiningSampler(num_images)
    sampler.set_weights(np.full(num_images, value))
    sampler.set_epoch(epoch)
    plain = HardMiningSampler(num_images)
    plain.set_epoch(epoch)
    assert list(sampler) == list(plain)

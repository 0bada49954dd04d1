from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler
from torch.utils.data.distributed import DistributedSampler

from hardmine.draws import epoch_stream
from hardmine.errors import InputError
from hardmine.sampler import HardMiningSampler


@pytest.mark.parametrize("world_size", range(1, 9))
@pytest.mark.parametrize("shuffle", [True, False])
def test_equal_weights_are_torch_distributed_sampler_index_for_index(
    world_size: int, shuffle: bool
) -> None:
    for num_images, seed, epoch in [(1, 0, 0), (3, 5, 1), (100, 0, 7), (1001, 42, 3)]:
        for rank in range(world_size):
            theirs = DistributedSampler(
                range(num_images), world_size, rank, shuffle=shuffle, seed=seed
            )
            theirs.set_epoch(epoch)
            ours = HardMiningSampler(
                num_images, seed=seed, shuffle=shuffle, rank=rank, world_size=world_size
            )
            ours.set_epoch(epoch)
            assert len(ours) == len(theirs)
            assert list(ours) == list(theirs)


def test_equal_weights_are_torch_random_sampler_too() -> None:
    theirs = RandomSampler(range(500), generator=torch.Generator().manual_seed(9))
    ours = HardMiningSampler(500, seed=9)
    ours.set_weights(np.full(500, 0.1))  # a tenth has no exact binary form
    assert list(ours) == list(theirs)


@pytest.mark.parametrize(
    ("weights", "length", "counts"),
    [
        ([1, 1, 1], 3, [1, 1, 1]),
        ([1, 2, 3], 6, [1, 2, 3]),
        ([1, 2, 3], 12, [2, 4, 6]),
        ([0, 5, 0], 4, [0, 4, 0]),  # zero is never drawn
        ([0.25, 0.75], 8, [2, 6]),
        ([1e-300, 1e-300], 6, [3, 3]),  # only ratios count
        ([5e-324, 1.5e-323], 8, [2, 6]),  # the smallest that float64 knows
        ([1e300, 3e300], 4, [1, 3]),
        ([7], 3, [3]),
    ],
)
def test_whole_expectations_are_met_in_every_epoch(
    weights: list[float], length: int, counts: list[int]
) -> None:
    for epoch in range(50):
        stream = epoch_stream(
            torch.tensor(weights, dtype=torch.float64), len(weights), length, seed=3, epoch=epoch
        )
        assert stream.bincount(minlength=len(weights)).tolist() == counts


def test_long_run_frequency_meets_the_weight_and_nobody_starves() -> None:
    weights = np.random.default_rng(0).uniform(1, 4, 300)
    expected = weights / weights.sum() * 300
    sampler = HardMiningSampler(300, shuffle=False)
    sampler.set_weights(weights)
    drawn = np.array([np.bincount(list(sampler), minlength=300) for _ in range(400)])
    # Golden-ratio offsets: the error of a sum of n epochs grows like log n, not like sqrt n.
    assert np.abs(drawn.sum(axis=0) - 400 * expected).max() < 4
    rarest = expected.argmin()
    gaps = np.diff(np.flatnonzero(drawn[:, rarest]))
    assert gaps.max() <= 3 / expected[rarest]


def test_epochs_differ_and_advance_by_themselves_until_told_otherwise() -> None:
    sampler = HardMiningSampler(50)
    first, second = list(sampler), list(sampler)
    assert first != second
    assert sampler.epoch == 2
    sampler.set_epoch(0)
    assert list(sampler) == first


def test_weights_that_nothing_is_drawn_by_are_told(caplog: pytest.LogCaptureFixture) -> None:
    forgotten, used, running = (HardMiningSampler(5, infinite=each > 1) for each in range(3))
    list(used)
    endless = iter(running)
    for _ in range(4):
        next(endless)
        for sampler in (forgotten, used, running):
            sampler.set_weights([1, 2, 3, 4, 5])
    assert [record.getMessage()[:26] for record in caplog.records] == ["weights were set 3 times a"]


def test_a_wrapper_copied_into_a_project_does_not_shard_twice() -> None:
    class DistributedSamplerWrapper:  # as in Catalyst, whose class many projects have copied
        def __init__(self, sampler: HardMiningSampler) -> None:
            self.sampler = sampler

        def __iter__(self) -> Iterator[int]:
            return islice(list(self.sampler), 0, None, 2)

    with pytest.raises(InputError, match="DistributedSamplerWrapper would shard that again"):
        list(DistributedSamplerWrapper(HardMiningSampler(9, rank=0, world_size=2)))


def test_an_epoch_left_half_way_is_drawn_again() -> None:
    sampler = HardMiningSampler(50)
    assert list(islice(sampler, 20)) == list(sampler)[:20]


def test_a_loop_that_shows_the_same_part_of_an_epoch_again_and_again_is_told() -> None:
    sampler = HardMiningSampler(50)
    first = [list(islice(sampler, 20)) for _ in range(2)]
    with pytest.warns(RuntimeWarning, match="epoch 0 .* as it was left after 20 .*call set_epoch"):
        first.append(list(islice(sampler, 20)))
    assert first[0] == first[1] == first[2]
    list(islice(sampler, 20))  # it is said once
    told = HardMiningSampler(50)
    for epoch in (0, 1, 2, 2, 2):  # and not to those who ask for it
        told.set_epoch(epoch)
        list(islice(told, 20))
    running = iter(HardMiningSampler(50))
    assert len([*islice(running, 5), *running]) == 50


def test_epoch_length_stays_whatever_the_weights() -> None:
    sampler = HardMiningSampler(10, epoch_length=25)
    sampler.set_weights(np.arange(10))
    for _ in range(5):
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == 25
        assert 0 not in drawn


def test_new_weights_wait_for_the_next_epoch() -> None:
    sampler = HardMiningSampler(100, seed=1)
    plain = list(HardMiningSampler(100, seed=1))
    running = iter(sampler)
    drawn = list(islice(running, 30))
    weights = np.zeros(100)
    weights[7] = 1
    sampler.set_weights(weights)
    weights[:] = 1  # the sampler has its own copy
    assert drawn + list(running) == plain
    assert list(sampler) == [7] * 100


def test_weights_set_after_loading_are_for_the_next_epoch_that_begins() -> None:
    only_seven = np.eye(20)[7]
    for taken in (0, 5, 20):  # before an epoch, in it, after it
        saved = HardMiningSampler(20)
        drawn = list(islice(saved, taken)) if taken < 20 else list(saved)
        resumed = HardMiningSampler(20)
        resumed.load_state_dict(saved.state_dict())
        resumed.set_weights(only_seven)
        if taken == 5:
            assert drawn + list(resumed) == list(HardMiningSampler(20))
        assert list(resumed) == [7] * 20


def test_weights_are_given_back_but_cannot_be_written() -> None:
    sampler = HardMiningSampler(3)
    assert sampler.weights.tolist() == [1, 1, 1]
    sampler.set_weights(torch.tensor([1, 2, 3]))
    assert sampler.weights.tolist() == [1, 2, 3]
    with pytest.raises(ValueError, match="read-only"):
        sampler.weights[0] = 5
    sampler.set_weights(sampler.weights)  # a read-only array is fine as input
    assert sampler.weights.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, 2.0], r"one value per image \(expected 4, got 2\); was the index built on another"),
        (np.ones((4, 1)), r"got shape \(4, 1\)"),
        ([1, 2, float("nan"), 4], "must be finite, got nan for image 2 and 0 more"),
        ([1, 2, float("inf"), float("nan")], "must be finite, got inf for image 2 and 1 more"),
        ([1, -0.5, 1, 1], "must not be negative, got -0.5 for image 1"),
        ([0, 0, 0, 0], "must not all be zero"),
        (["a", 1, 2, 3], "weights must be numbers, one per image"),
        ([[1], [2, 3]], "weights must be numbers, one per image"),
        (None, "got shape"),
    ],
)
def test_bad_weights_are_refused_and_the_old_ones_stay(weights: object, message: str) -> None:
    sampler = HardMiningSampler(4)
    sampler.set_weights([4, 3, 2, 1])
    with pytest.raises(InputError, match=message):
        sampler.set_weights(weights)
    assert sampler.weights.tolist() == [4, 3, 2, 1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"dataset": 0}, "num_images must be in 1 to"),
        ({"dataset": 2**31}, "num_images must be in 1 to"),
        ({"dataset": 5, "epoch_length": 0}, "epoch_length must be in 1 to"),
        ({"dataset": 5, "rank": 1}, "together or neither"),
        ({"dataset": 5, "seed": None}, r"seed must be a whole number, got None"),
        ({"dataset": 5, "epoch_length": 2.0}, "epoch_length must be a whole number, got 2.0"),
        ({"dataset": 5, "sharded_by": "me"}, 'must be "sampler" or "host", got \'me\''),
        ({"dataset": 5, "sharded_by": "host", "rank": 0, "world_size": 2}, "not both"),
        ({"dataset": 5, "rank": 2, "world_size": 2}, "rank must be in 0 to world_size - 1 = 1"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        HardMiningSampler(**arguments)


def test_takes_a_data_set_and_keeps_it_for_batch_samplers() -> None:
    images = ["a", "b", "c"]
    sampler = HardMiningSampler(images)
    assert sampler.dataset is images
    assert sorted(sampler) == [0, 1, 2]
    assert HardMiningSampler(np.int64(3)).num_images == 3  # type: ignore[arg-type]
    assert [len(batch) for batch in BatchSampler(sampler, 2, drop_last=False)] == [2, 1]


def test_infinite_form_is_one_epoch_after_another_with_new_weights_at_the_next() -> None:
    finite, infinite = HardMiningSampler(40, seed=2), HardMiningSampler(40, seed=2, infinite=True)
    expected = list(finite)
    running = iter(infinite)
    drawn = list(islice(running, 10))
    weights = np.linspace(0.5, 4, 40)
    infinite.set_weights(weights)
    finite.set_weights(weights)
    expected += [*finite, *finite]
    assert drawn + list(islice(running, 110)) == expected
    assert len(infinite) == 40


def test_rows_that_alternate_are_drawn_alike() -> None:
    """Rows of two cameras in turn, half of them an epoch: each epoch shows both cameras."""
    sampler = HardMiningSampler(10_000, epoch_length=5000)
    shares = [np.mean(np.array(list(sampler)) % 2) for _ in range(20)]
    # Each share is a sum over 5,000 draws without replacement: a standard error of 0.5 %.
    assert np.abs(np.array(shares) - 0.5).max() < 0.03
    sampler.set_weights(np.where(np.arange(10_000) % 10 == 0, 2.0, 1.0))
    together = [set(sampler) for _ in range(20)]
    assert all(any({row, row + 1} <= drawn for drawn in together) for row in range(0, 9000, 700))


def test_repeats_of_an_image_are_spread_over_the_epoch() -> None:
    weights = np.ones(2000)
    weights[:100] = 6.0
    sampler = HardMiningSampler(2000, seed=2)
    sampler.set_weights(weights)
    drawn = np.array(list(sampler))
    batches = drawn[: 64 * (len(drawn) // 64)].reshape(-1, 64)
    assert all(len(set(batch)) == 64 for batch in batches.tolist())
    for row in range(100):
        gaps = np.diff(np.flatnonzero(drawn == row))
        # k draws lie 1 / k of an epoch apart, but for images that have one more or less.
        assert len(gaps) in (3, 4)
        assert gaps.min() > 0.9 * 2000 / (len(gaps) + 1)
    # The order is random otherwise: the first draw is as likely to be any of them.
    first = np.array([next(iter(HardMiningSampler(2000, seed=seed))) for seed in range(200)])
    assert 0.4 < np.mean(first < 1000) < 0.6
    # An image's place in the epoch is uniform.
    once = np.flatnonzero(drawn >= 100) / len(drawn)
    assert abs(once.mean() - 0.5) < 0.02


def test_whole_numbers_of_any_type_and_weights_of_any_size() -> None:
    sampler = HardMiningSampler(np.int64(4), epoch_length=np.int32(8), seed=np.uint8(3))  # type: ignore[arg-type]
    sampler.set_epoch(np.int64(2))  # type: ignore[arg-type]
    assert len(list(sampler)) == 8
    sampler.set_weights([16777217, 1, 1, 1])  # a float32 would round it
    assert sampler.weights[0] == 16777217
    sampler.set_weights([1e300, 1e300, 0, 1e300])
    assert 2 not in list(sampler)


def test_a_sampler_that_the_host_shards_draws_the_whole_stream() -> None:
    sampler = HardMiningSampler(9, sharded_by="host")
    assert (sampler.rank, sampler.world_size, len(sampler)) == (0, 1, 9)
    assert sorted(sampler) == list(range(9))

from __future__ import annotations

import io
from itertools import islice

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, RandomSampler
from torch.utils.data.distributed import DistributedSampler

from hardmine.draws import draw_counts, epoch_stream
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


def test_an_epoch_left_half_way_is_drawn_again() -> None:
    sampler = HardMiningSampler(50)
    assert list(islice(sampler, 20)) == list(sampler)[:20]


def test_epoch_length_stays_whatever_the_weights() -> None:
    sampler = HardMiningSampler(10, epoch_length=25)
    sampler.set_weights(np.arange(10))
    for _ in range(5):
        drawn = list(sampler)
        assert len(drawn) == len(sampler) == 25
        assert 0 not in drawn


def test_passes_say_how_often_an_image_was_drawn_in_the_mean() -> None:
    sampler = HardMiningSampler(4, epoch_length=8, rank=0, world_size=2)
    assert sampler.passes == 0
    stream = iter(sampler)
    assert [next(stream) is None or sampler.passes for _ in range(2)] == [0.5, 1.0]
    list(stream)
    assert sampler.passes == 2
    sampler.set_epoch(7)
    assert sampler.passes == 14
    endless = HardMiningSampler(4, infinite=True)
    list(islice(endless, 10))
    assert endless.passes == 2.5
    again = HardMiningSampler(4, infinite=True)
    again.load_state_dict(endless.state_dict())
    assert again.passes == 2.5


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


def resumed(state: dict[str, object], **arguments: object) -> HardMiningSampler:
    """A new sampler that goes on from a state that went through a file."""
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    sampler = HardMiningSampler(**arguments)  # type: ignore[arg-type]
    sampler.load_state_dict(torch.load(file, weights_only=True))
    return sampler


@pytest.mark.parametrize("infinite", [False, True])
@pytest.mark.parametrize("stop", [0, 1, 17, 49, 50])
def test_resumes_in_mid_epoch_with_the_weights_of_that_epoch_and_of_the_next(
    stop: int, infinite: bool
) -> None:
    arguments = {"dataset": 100, "seed": 4, "rank": 1, "world_size": 2, "infinite": infinite}
    sampler = HardMiningSampler(**arguments)
    sampler.set_weights(np.linspace(1, 4, 100))
    running = iter(sampler)
    drawn = list(islice(running, stop))
    sampler.set_weights(np.linspace(4, 1, 100))
    again = resumed(sampler.state_dict(), **arguments)
    if infinite:
        assert list(islice(again, 150)) == list(islice(running, 150))
        return
    assert list(again) == list(running)
    assert len(drawn) + len(list(sampler)) == stop + 50
    sampler.set_epoch(1)
    again.set_epoch(1)
    assert list(again) == list(sampler)


@pytest.mark.parametrize("key", ["started", "weights"])
def test_a_state_of_another_version_is_refused_before_anything_changes(key: str) -> None:
    saved = HardMiningSampler(20, seed=3)
    list(islice(saved, 5))
    state = saved.state_dict()
    del state[key]
    sampler = HardMiningSampler(20, seed=3)
    with pytest.raises(InputError, match=f"saved sampler lacks {key}: .*another version"):
        sampler.load_state_dict(state)
    assert list(sampler) == list(HardMiningSampler(20, seed=3))


def test_resumes_on_another_number_of_ranks() -> None:
    weights = np.linspace(1, 4, 60)

    def rank_of(rank: int, world_size: int) -> HardMiningSampler:
        sampler = HardMiningSampler(60, seed=8, rank=rank, world_size=world_size)
        sampler.set_weights(weights)
        return sampler

    stream = list(rank_of(0, 1))
    four = [rank_of(rank, 4) for rank in range(4)]
    parts = [list(islice(sampler, 6)) for sampler in four]
    assert [image for row in zip(*parts, strict=True) for image in row] == stream[:24]
    three = [rank_of(rank, 3) for rank in range(3)]
    for sampler in three:
        sampler.load_state_dict(four[0].state_dict())
    rest = [list(sampler) for sampler in three]
    assert [image for row in zip(*rest, strict=True) for image in row] == stream[24:]


@pytest.mark.parametrize("infinite", [False, True])
def test_state_can_be_taken_where_training_is_not_where_the_loader_is(infinite: bool) -> None:
    arguments = {"dataset": 30, "seed": 1, "infinite": infinite}
    sampler = HardMiningSampler(**arguments)
    sampler.set_weights(np.linspace(1, 2, 30))
    drawn = list(islice(iter(sampler), 30))  # all of it lies in the loader's queue
    sampler.set_weights(np.linspace(2, 1, 30))
    again = resumed(sampler.state_dict(used=12), **arguments)
    assert list(islice(again, 18)) == drawn[12:]
    done = resumed(sampler.state_dict(used=30), **arguments)
    sampler.set_epoch(1)
    assert list(islice(done, 30)) == list(islice(sampler, 30))


def test_an_epoch_that_is_drawn_to_its_end_may_still_be_in_training() -> None:
    sampler = HardMiningSampler(30, seed=1)
    sampler.set_weights(np.linspace(1, 2, 30))
    drawn = list(sampler)  # the loader has drawn all of it, training has not
    sampler.set_weights(np.linspace(2, 1, 30))
    again = resumed(sampler.state_dict(used=12), dataset=30, seed=1)
    assert again.epoch == 0
    assert list(again) == drawn[12:]
    for state in (sampler.state_dict(), sampler.state_dict(used=30)):
        assert (state["epoch"], state["position"]) == (1, 0)
    sampler.set_epoch(1)  # now that epoch is over for good
    assert sampler.state_dict(used=0)["epoch"] == 1
    assert list(again) == list(sampler)


def test_used_counts_from_the_start_of_an_infinite_iterator_over_passes() -> None:
    arguments = {"dataset": 10, "seed": 1, "infinite": True}
    sampler = HardMiningSampler(**arguments)
    drawn = list(islice(iter(sampler), 170))
    for used in (11, 20, 25, 169):
        again = resumed(sampler.state_dict(used=used), **arguments)
        assert list(islice(again, 170 - used)) == drawn[used:]
    with pytest.raises(InputError, match="16 passes behind"):
        sampler.state_dict(used=3)


def test_passes_drawn_ahead_of_training_are_drawn_again_with_their_own_weights() -> None:
    arguments = {"dataset": 10, "seed": 1, "infinite": True}
    sampler = HardMiningSampler(**arguments)
    stream = iter(sampler)
    drawn = list(islice(stream, 15))  # the loader has begun the second pass with equal weights
    sampler.set_weights(np.linspace(1, 5, 10))
    state = sampler.state_dict(used=7)
    drawn += list(islice(stream, 20))
    assert len(set(drawn[20:30])) < 10
    again = HardMiningSampler(**arguments)
    again.load_state_dict(state)
    stream = iter(again)
    assert list(islice(stream, 28)) == drawn[7:]
    # Resuming from the resumed one, before and after it has begun to draw.
    for used in (0, 2, 5):
        third = HardMiningSampler(**arguments)
        third.load_state_dict(again.state_dict(used=used))
        assert list(islice(third, 28 - used)) == drawn[7 + used :]


def test_going_to_another_epoch_forgets_the_place_to_resume_at() -> None:
    sampler = HardMiningSampler(20, seed=1)
    next(iter(sampler))
    again = resumed(sampler.state_dict(), dataset=20, seed=1)
    again.set_epoch(5)
    assert len(list(again)) == 20


def test_a_state_of_another_sampler_is_refused() -> None:
    state = HardMiningSampler(20, seed=1).state_dict()
    for arguments in ({"seed": 2}, {"dataset": 21, "epoch_length": 20}, {"epoch_length": 19}):
        with pytest.raises(InputError, match="make the sampler as it was"):
            resumed(state, **{"dataset": 20, "seed": 1, **arguments})


def test_state_costs_nothing_to_take_often() -> None:
    sampler = HardMiningSampler(1000)
    sampler.set_weights(np.linspace(1, 2, 1000))
    first, second = sampler.state_dict(), sampler.state_dict()
    assert first["weights"] is second["weights"]
    # What is handed in is copied: a checkpoint may be altered or reused.
    sampler.load_state_dict(first)
    first["weights"].zero_()
    assert sampler.state_dict()["weights"].min() == 1


def test_more_images_than_a_float32_can_count() -> None:
    num_images = 20_000_000  # torch.multinomial ends at 2^24 = 16,777,216
    weights = torch.ones(num_images, dtype=torch.float64)
    weights[-1000:] = 2.5
    stream = epoch_stream(weights, num_images, num_images, seed=0, epoch=0)
    assert (len(stream), stream.dtype) == (num_images, torch.int32)
    tail = stream[stream >= num_images - 1000] - (num_images - 1000)
    counts = tail.bincount(minlength=1000)
    assert set(counts.tolist()) == {2, 3}
    assert len(tail) == pytest.approx(2500 * num_images / float(weights.sum()), abs=1)
    assert int(stream[0]) != int(stream[1])


def test_counts_do_not_depend_on_the_number_of_threads() -> None:
    weights = torch.from_numpy(np.random.default_rng(1).uniform(1, 4, 200_000))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = draw_counts(weights, 150_000, phase=12345)
        torch.set_num_threads(4)
        assert torch.equal(draw_counts(weights, 150_000, phase=12345), alone)
    finally:
        torch.set_num_threads(threads)

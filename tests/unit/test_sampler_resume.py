"""Stopping, looking ahead and resuming: the very next image, whatever was drawn meanwhile."""

from __future__ import annotations

import io
from itertools import islice

import numpy as np
import pytest
import torch

from hardmine.draws import draw_counts, epoch_stream
from hardmine.errors import InputError
from hardmine.sampler import HardMiningSampler


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
    # Each count is rounded by itself, so their sum has a standard error of 16.
    assert len(tail) == pytest.approx(2500 * num_images / float(weights.sum()), abs=60)
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


def test_a_loop_that_stops_at_the_last_image_has_drawn_the_epoch() -> None:
    sampler, whole = HardMiningSampler(20, seed=1), HardMiningSampler(20, seed=1)
    for epoch in range(3):
        assert list(islice(sampler, 20)) == list(whole)
        assert sampler.epoch == epoch + 1
    again = resumed(sampler.state_dict(), dataset=20, seed=1)
    assert list(again) == list(whole)
    # An iterator that is still there has nothing more to give, and goes on so.
    running = iter(sampler)
    list(islice(running, 20))
    again = resumed(sampler.state_dict(), dataset=20, seed=1)
    assert list(again) == list(running) == []
    assert len(list(again)) == 20


def test_a_peek_moves_nothing() -> None:
    sampler, alone = (HardMiningSampler(20, seed=1) for _ in range(2))
    running, undisturbed = iter(sampler), iter(alone)
    drawn = [list(islice(iterator, 7)) for iterator in (running, undisturbed)]
    assert next(iter(sampler)) == drawn[0][0]
    before, after = alone.state_dict(), sampler.state_dict()
    assert (after["epoch"], after["position"]) == (before["epoch"], before["position"]) == (0, 7)
    assert sampler.state_dict(used=3)["position"] == 3
    again = resumed(after, dataset=20, seed=1)
    rest = list(running)
    assert rest == list(undisturbed) == list(again)
    assert sampler.epoch == 1
    assert list(sampler) == list(alone)
    # Also where the loader has the whole epoch in its queue already.
    list(sampler)
    next(iter(sampler))
    assert sampler.state_dict(used=4)["epoch"] == 2
    assert sampler.state_dict()["epoch"] == 3


def test_an_epoch_that_is_set_again_after_its_end_is_drawn_again() -> None:
    sampler = HardMiningSampler(20, seed=1)
    first = list(sampler)
    sampler.set_epoch(0)
    again = resumed(sampler.state_dict(), dataset=20, seed=1)
    assert list(again) == first

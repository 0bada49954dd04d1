"""Batches grouped by shape resume where they stopped, however far the loader drew ahead."""

from __future__ import annotations

import random

import numpy as np
import pytest
from mmdet.datasets.samplers import AspectRatioBatchSampler
from torch.utils.data import BatchSampler

from hardmine.hosts import TrainedBatches
from hardmine_mmdet import HardMiningSampler

SHAPES = [(3, 4) if row % 3 else (4, 3) for row in range(17)]


class Shapes:
    """The part of a data set that grouping by shape needs."""

    def __len__(self) -> int:
        return len(SHAPES)

    def get_data_info(self, row: int) -> dict[str, int]:
        height, width = SHAPES[row]
        return {"height": height, "width": width}


def loader(kind, batch_size):
    sampler = HardMiningSampler(Shapes(), seed=5, infinite=True)
    return sampler, kind(sampler, batch_size, drop_last=False)


def train(batches, trained, batches_used, *, ahead, until):
    """Train on batches in order while the loader has drawn more."""
    queue = []
    while len(batches_used) < until:
        while len(queue) <= ahead:
            queue.append(next(batches))
        trained.count_batch()
        batches_used.append(queue.pop(0))


@pytest.mark.parametrize("kind", [BatchSampler, AspectRatioBatchSampler])
@pytest.mark.parametrize("ahead", [0, 4, 40], ids=lambda ahead: f"{ahead} ahead")
def test_repeated_interruptions_change_nothing(kind, ahead) -> None:
    sampler, batch_sampler = loader(kind, 3)
    batches = iter(batch_sampler)
    uninterrupted = [next(batches) for _ in range(60)]
    rng = random.Random(ahead)
    batches_used, state = [], None
    while len(batches_used) < 60:
        sampler, batch_sampler = loader(kind, 3)
        # mmengine's loop makes an iterator before anything is restored, and its workers draw.
        unused = iter(batch_sampler)
        for _ in range(rng.randrange(3)):
            next(unused)
        if state is not None:
            sampler.load_state_dict(state)
        trained = TrainedBatches(batch_sampler, sampler)
        stop = min(len(batches_used) + rng.randrange(9), 60)
        train(iter(batch_sampler), trained, batches_used, ahead=ahead, until=stop)
        state = trained.sampler_state()
    assert batches_used == uninterrupted


def test_new_weights_start_at_the_same_pass_after_a_resume() -> None:
    """A pass that the loader began ahead of training keeps its old weights."""
    weights = np.linspace(1, 5, len(SHAPES))
    sampler, batch_sampler = loader(AspectRatioBatchSampler, 4)
    trained = TrainedBatches(batch_sampler, sampler)
    batches, batches_used = iter(batch_sampler), []
    queue = [next(batches) for _ in range(6)]  # into the second pass
    for _ in range(2):
        trained.count_batch()
        batches_used.append(queue.pop(0))
    sampler.set_weights(weights)
    state = trained.sampler_state()
    rest = queue + [next(batches) for _ in range(30)]

    sampler, batch_sampler = loader(AspectRatioBatchSampler, 4)
    sampler.load_state_dict(state)
    TrainedBatches(batch_sampler, sampler)
    again = iter(batch_sampler)
    assert [next(again) for _ in rest] == rest
    counts = np.bincount(np.concatenate(rest), minlength=len(SHAPES))
    assert counts[-1] > 2 * counts[0]


def test_reading_the_state_does_not_change_it() -> None:
    sampler, batch_sampler = loader(AspectRatioBatchSampler, 3)
    trained = TrainedBatches(batch_sampler, sampler)
    train(iter(batch_sampler), trained, [], ahead=2, until=7)
    assert trained.sampler_state() == trained.sampler_state()

"""The sampler under the loaders people use: workers, batch samplers, torchdata, Lightning."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler
from torchdata.stateful_dataloader import StatefulDataLoader

from hardmine.sampler import HardMiningSampler

# torchdata 0.11 calls it; torch 2.15 has deprecated it.
pytestmark = pytest.mark.filterwarnings("ignore:'set_vital' is deprecated:UserWarning")

NUM_IMAGES = 64


class Images(Dataset[int]):
    """Image rows as their own content, with a height and a width."""

    def __len__(self) -> int:
        return NUM_IMAGES

    def __getitem__(self, row: int) -> int:
        return row

    def shape(self, row: int) -> tuple[int, int]:
        return (2, 3) if row % 3 else (3, 2)


class ByShape(BatchSampler):
    """Batches of one orientation, asked of ``sampler.dataset``, as mmdet's do."""

    def __iter__(self) -> Iterator[list[int]]:
        waiting: dict[bool, list[int]] = {True: [], False: []}
        for row in self.sampler:
            height, width = self.sampler.dataset.shape(row)
            group = waiting[height > width]
            group.append(row)
            if len(group) == self.batch_size:
                yield group.copy()
                group.clear()
        yield from (group for group in waiting.values() if group)


def rows(batches: Any) -> list[int]:
    return [row for batch in batches for row in batch.tolist()]


def ramp(first: float, last: float) -> np.ndarray:
    return np.linspace(first, last, NUM_IMAGES)


@pytest.mark.parametrize("workers", [0, 2])
def test_weights_set_between_epochs_take_effect_with_persistent_workers(workers: int) -> None:
    sampler, alone = HardMiningSampler(NUM_IMAGES), HardMiningSampler(NUM_IMAGES)
    loader = DataLoader(
        Images(), 8, sampler=sampler, num_workers=workers, persistent_workers=workers > 0
    )
    for weights in (None, ramp(1, 4), ramp(4, 1)):
        if weights is not None:
            sampler.set_weights(weights)
            alone.set_weights(weights)
        assert rows(loader) == list(alone)


def test_weights_set_while_workers_prefetch_wait_for_the_next_epoch() -> None:
    sampler, alone = HardMiningSampler(NUM_IMAGES), HardMiningSampler(NUM_IMAGES)
    batches = iter(DataLoader(Images(), 4, sampler=sampler, num_workers=2, prefetch_factor=2))
    drawn = rows(islice(batches, 3))
    sampler.set_weights(ramp(0, 4))
    assert drawn + rows(batches) == list(alone)
    alone.set_weights(ramp(0, 4))
    assert list(sampler) == list(alone)


def test_batch_samplers_that_ask_the_sampler_for_its_data_set() -> None:
    images = Images()
    sampler = HardMiningSampler(images)
    sampler.set_weights(ramp(1, 4))
    batches = ByShape(sampler, 4, drop_last=False)
    seen = list(DataLoader(images, batch_sampler=batches))
    assert all(len({images.shape(row) for row in batch.tolist()}) == 1 for batch in seen)
    sampler.set_epoch(0)
    assert sorted(rows(seen)) == sorted(sampler)
    assert len(batches) == NUM_IMAGES // 4


def test_set_epoch_found_where_lightning_looks_for_it() -> None:
    # Lightning calls set_epoch on loader.sampler and on loader.batch_sampler.sampler.
    sampler = HardMiningSampler(NUM_IMAGES, rank=0, world_size=2)
    loader = DataLoader(Images(), 4, sampler=sampler)
    for epoch in (0, 1, 5):
        for holder in (loader, loader.batch_sampler):
            assert isinstance(holder.sampler, Sampler)
            holder.sampler.set_epoch(epoch)
        other = HardMiningSampler(NUM_IMAGES, rank=0, world_size=2)
        other.set_epoch(epoch)
        assert rows(loader) == list(other)
    assert len(loader) == NUM_IMAGES // 2 // 4


@pytest.mark.parametrize("kind", [DataLoader, StatefulDataLoader])
@pytest.mark.parametrize("world_size", [1, 3])
def test_a_loop_over_the_batches_of_an_epoch_ends_it_though_the_rest_is_dropped(
    kind: Any, world_size: int
) -> None:
    # 64 images, or 22 a rank, are 9 or 3 batches of 7 and one image, which no batch ever holds.
    sampler = HardMiningSampler(NUM_IMAGES, rank=0, world_size=world_size)
    loader = kind(Images(), 7, sampler=sampler, drop_last=True)
    seen = [rows(islice(loader, len(loader))) for _ in range(3)]
    for epoch, drawn in enumerate(seen):
        whole = HardMiningSampler(NUM_IMAGES, rank=0, world_size=world_size)
        whole.set_epoch(epoch)
        assert drawn == list(whole)[:-1]
    used = len(seen[2])
    for state in (sampler.state_dict(used=used), *([sampler.state_dict()] * (kind is DataLoader))):
        assert (state["epoch"], state["position"]) == (3, 0)
    assert sampler.state_dict(used=7)["position"] == 7 * world_size


@pytest.mark.parametrize("trained", [0, 5, 13, 16])  # of 16 batches, up to 8 drawn ahead
def test_a_plain_loader_with_workers_resumes_where_training_was(trained: int) -> None:
    def loader(sampler: HardMiningSampler) -> DataLoader[int]:
        return DataLoader(Images(), 4, sampler=sampler, num_workers=2, prefetch_factor=4)

    sampler = HardMiningSampler(NUM_IMAGES)
    sampler.set_weights(ramp(1, 4))
    batches = iter(loader(sampler))
    list(islice(batches, trained))
    again = HardMiningSampler(NUM_IMAGES)
    again.load_state_dict(sampler.state_dict(used=trained * 4))
    rest = rows(batches)
    assert len(rest) == (16 - trained) * 4
    assert rows(loader(again)) == (rest or rows(loader(sampler)))


def stateful(
    sampler: HardMiningSampler, workers: int, batch_size: int | None, every: int = 1
) -> StatefulDataLoader:
    return StatefulDataLoader(
        Images(),
        batch_size,
        sampler=sampler,
        num_workers=workers,
        snapshot_every_n_steps=every,
    )


def saved(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    # torchdata keeps plain values, the sampler tensors: nothing that weights_only refuses.
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


@pytest.mark.parametrize(("workers", "every"), [(0, 1), (2, 1), (2, 3)])
@pytest.mark.parametrize("stop", [0, 5, 16])
def test_torchdata_resumes_in_mid_epoch_and_goes_on_with_the_next_weights(
    workers: int, every: int, stop: int
) -> None:
    sampler = HardMiningSampler(NUM_IMAGES, seed=3)
    sampler.set_weights(ramp(1, 4))
    loader = stateful(sampler, workers, 4, every)
    batches = iter(loader)
    list(islice(batches, stop))
    sampler.set_weights(ramp(4, 1))
    again = HardMiningSampler(NUM_IMAGES, seed=3)
    second = stateful(again, workers, 4, every)
    second.load_state_dict(saved(loader.state_dict()))
    rest = rows(batches)
    assert len(rest) == NUM_IMAGES - 4 * stop
    assert rows(second) == rest
    # Snapshots that were taken before the new weights do not hold them.
    again.set_weights(ramp(4, 1))
    assert rows(second) == rows(loader)


def test_torchdata_resumes_without_batches_and_at_the_end_of_an_epoch() -> None:
    sampler, again = HardMiningSampler(NUM_IMAGES), HardMiningSampler(NUM_IMAGES)
    loader, second = stateful(sampler, 0, None), stateful(again, 0, None)
    units = iter(loader)
    list(islice(units, 10))
    second.load_state_dict(saved(loader.state_dict()))
    assert list(second) == list(units)
    second.load_state_dict(saved(loader.state_dict()))  # finished: the next epoch follows
    assert list(second) == list(loader)


def test_torchdata_resumes_an_infinite_stream() -> None:
    def new() -> HardMiningSampler:
        return HardMiningSampler(NUM_IMAGES, seed=6, infinite=True)

    loader, second = stateful(new(), 2, 4), stateful(new(), 2, 4)
    batches = iter(loader)
    list(islice(batches, 37))
    second.load_state_dict(saved(loader.state_dict()))
    assert rows(islice(second, 20)) == rows(islice(batches, 20))

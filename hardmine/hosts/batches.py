"""How far training is in the sampler's stream, although the loader draws ahead of it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import Any

from torch.utils.data import Sampler

from hardmine.sampler import HardMiningSampler


class RecordedSampler(HardMiningSampler):
    """A ``HardMiningSampler`` whose draws ``TrainedBatches`` can follow.

    Attributes:
        drawn_rows: Records every drawn row, unless it is None.
        waiting: Rows to draw before all others. A batch sampler held them back when the run was
            saved.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.drawn_rows: deque[int] | None = None
        self.waiting: list[int] = []

    def __iter__(self) -> Iterator[int]:
        for row in chain(self.waiting, super().__iter__()):
            if self.drawn_rows is not None:
                self.drawn_rows.append(row)
            yield row

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where a state was taken, including rows that waited for a batch."""
        super().load_state_dict(state)
        self.waiting = list(state.get("waiting", ()))


class TrainedBatches:
    """Knows the sampler's state after the batches that training used.

    Batch samplers such as ``AspectRatioBatchSampler`` hold images back until a batch of one shape
    is full. The number of trained batches therefore says neither how many images were drawn for
    them nor which drawn images still wait. To find out, a copy of the batch sampler groups the
    drawn images a second time, at training's pace.

    Args:
        batch_sampler: Of the training loader. Images that it holds back are dropped.
        sampler: The sampler inside it. Its draws are recorded from now on.
    """

    def __init__(self, batch_sampler: Any, sampler: RecordedSampler) -> None:
        self._sampler = sampler
        self._replayed = _ReplayedDraws(sampler.dataset)
        sampler.drawn_rows = self._replayed.ahead
        drop_held_back(batch_sampler)
        # The copy draws from the record, and shares the data set with the original.
        replacements = {id(sampler): self._replayed, id(sampler.dataset): sampler.dataset}
        self._batches = iter(copy.deepcopy(batch_sampler, replacements))
        self._num_trained = self._num_grouped = 0

    def count_batch(self) -> None:
        """Count one batch that training used."""
        self._num_trained += 1

    def sampler_state(self) -> dict[str, Any]:
        """The sampler's state after the trained batches, for this rank."""
        # Grouped on demand: looking up the shape of every drawn image takes time.
        for _ in range(self._num_trained - self._num_grouped):
            for row in next(self._batches):
                self._replayed.waiting.remove(row)
        self._num_grouped = self._num_trained
        resumed, used = self._sampler.waiting, self._replayed.used
        state = self._sampler.state_dict(used=max(used - len(resumed), 0))
        return state | {"waiting": self._replayed.waiting + resumed[used:]}


def drop_held_back(batch_sampler: Any) -> None:
    """Run a batch sampler to its end on no images, which empties its groups."""
    sampler, batch_sampler.sampler = batch_sampler.sampler, ()
    for _ in batch_sampler:
        pass
    batch_sampler.sampler = sampler


class _ReplayedDraws(Sampler[int]):
    """The drawn rows, in order, a second time.

    Attributes:
        ahead: Rows that were drawn and not replayed yet.
        waiting: Rows that were replayed and are in no batch yet.
        used: Number of replayed rows.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.ahead: deque[int] = deque()
        self.waiting: list[int] = []
        self.used = 0

    def __iter__(self) -> Iterator[int]:
        while self.ahead:
            row = self.ahead.popleft()
            self.waiting.append(row)
            self.used += 1
            yield row

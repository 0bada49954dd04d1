"""Where training stands in the stream of images, while the loader draws ahead of it."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from hardmine_mmdet.sampler import HardMiningSampler


class TrainedBatches:
    """What the batches that were trained on took from the sampler.

    Batch samplers such as ``AspectRatioBatchSampler`` keep images back until there are enough
    alike, so how many images some batches took, and which were drawn and wait for a batch, can
    only be told by grouping. That is done a second time here, at training's pace.

    Args:
        batch_sampler: Of the training loader. What it kept back for a loader that drew from it
            before is thrown away.
        sampler: The one inside; what it draws from now on is followed.
    """

    def __init__(self, batch_sampler: Any, sampler: HardMiningSampler) -> None:
        self._sampler = sampler
        self._draws = _Draws(sampler.dataset)
        sampler.drawn = self._draws.ahead
        empty(batch_sampler)
        known = {id(sampler): self._draws, id(sampler.dataset): sampler.dataset}
        self._batches = iter(copy.deepcopy(batch_sampler, known))
        self._taken = self._grouped = 0

    def take(self) -> None:
        """Count a batch that training got from the loader."""
        self._taken += 1

    def sampler_state(self) -> dict[str, Any]:
        """The sampler's state after the batches taken, for this rank."""
        # Grouped when asked, since looking up an image's shape for each draw costs some time.
        for _ in range(self._taken - self._grouped):
            for row in next(self._batches):
                self._draws.waiting.remove(row)
        self._grouped = self._taken
        resumed, used = self._sampler.waiting, self._draws.used
        state = self._sampler.state_dict(used=max(used - len(resumed), 0))
        return state | {"waiting": self._draws.waiting + resumed[used:]}


def empty(batch_sampler: Any) -> None:
    """Let a batch sampler end its pass, which empties its buckets."""
    sampler, batch_sampler.sampler = batch_sampler.sampler, ()
    for _ in batch_sampler:
        pass
    batch_sampler.sampler = sampler


class _Draws(Sampler[int]):
    """The images drawn, handed out once more."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self.ahead: deque[int] = deque()
        self.waiting: list[int] = []  # handed out, and in no batch yet
        self.used = 0

    def __iter__(self) -> Iterator[int]:
        while self.ahead:
            row = self.ahead.popleft()
            self.waiting.append(row)
            self.used += 1
            yield row

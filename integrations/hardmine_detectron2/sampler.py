"""The sampler of the training loader, which detectron2 iterates inside the workers."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import Sampler

from hardmine import HardMiningSampler


class LoaderSampler(Sampler[int]):
    """Draws on, without end, from where another sampler was.

    detectron2's loader makes an index out of the sampler in every worker. Each worker gets a copy
    when the loader is iterated, so the loader must be iterated anew after ``state`` was set.

    Args:
        original: Draws what training has used.

    Attributes:
        state: Of the original, where the next iterator begins.
    """

    def __init__(self, original: HardMiningSampler) -> None:
        self._num_images, self._seed = original.num_images, original.seed
        self._rank, self._world_size = original.rank, original.world_size
        self.state: dict[str, Any] = original.state_dict()

    def __len__(self) -> int:
        return self._num_images

    def __iter__(self) -> Iterator[int]:
        sampler = HardMiningSampler(
            self._num_images,
            seed=self._seed,
            rank=self._rank,
            world_size=self._world_size,
            infinite=True,
        )
        sampler.load_state_dict(self.state)
        draws = iter(sampler)
        with warnings.catch_warnings():
            # That it is iterated in a worker, which the hook knows.
            warnings.simplefilter("ignore", RuntimeWarning)
            first = next(draws)
        yield first
        yield from draws

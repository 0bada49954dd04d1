"""The sampler inside a loader, and an iterator that passes over batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hardmine.errors import InputError
from hardmine.sampler import HardMiningSampler


def find_sampler(loader: Any, *, advice: str) -> HardMiningSampler:
    """Find the ``HardMiningSampler`` of a loader, also inside a batch sampler that groups shapes.

    Args:
        loader: A DataLoader, or one that behaves like it.
        advice: How to set the sampler in this trainer, for the error.

    Raises:
        InputError: If the loader has another sampler.
    """
    batches = getattr(loader, "batch_sampler", None)
    # Accelerate wraps the batch sampler whose batches it shards.
    inner = getattr(getattr(batches, "batch_sampler", batches), "sampler", None)
    outer = getattr(loader, "sampler", None)
    for sampler in (outer, inner):
        if isinstance(sampler, HardMiningSampler):
            return sampler
    found = inner if inner is not None else outer
    if found is None:
        raise InputError(f"a {type(loader).__name__} to train from has no sampler; {advice}")
    raise InputError(f"the training loader draws with {type(found).__name__}; {advice}")


class SkippedBatches:
    """An iterator that yields None for the first batches, without drawing them.

    Args:
        batches: What to yield after that.
        skip: How many batches were trained before.
    """

    def __init__(self, batches: Iterator[Any], skip: int) -> None:
        self.batches = batches
        self._skip = skip

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if self._skip > 0:
            self._skip -= 1
            return None
        return next(self.batches)

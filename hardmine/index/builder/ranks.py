"""Coordinates the ranks of ``torch.distributed`` that build one index together."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed as dist

from hardmine.distributed import broadcast_from_rank_zero, call_and_catch, rank_and_world_size
from hardmine.errors import HardmineError

T = TypeVar("T")
# A rank may wait for another as long as one shard takes. gloo's default of 30 min can be too short.
_TIMEOUT = datetime.timedelta(days=7)


class RankGroup:
    """All ranks of ``torch.distributed``, or this process alone.

    The ranks talk over gloo, whatever backend the training uses. An error on one rank is raised
    on all of them, so that none waits for a rank that has failed. Use it as a context manager.
    """

    def __init__(self) -> None:
        self.rank, self.size = rank_and_world_size()
        self._group: Any = None
        if self.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=_TIMEOUT)

    def __enter__(self) -> RankGroup:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Destroy the gloo group: one that lives until the process exits can abort it there."""
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None

    def on_rank_zero(self, action: Callable[[], T]) -> T:
        """Run an action on rank 0; every rank gets its result, or its error."""
        return broadcast_from_rank_zero(action, group=self._group)

    def on_every_rank(self, action: Callable[[], None]) -> None:
        """Run an action on every rank, and return when all have finished it without error."""
        _, error = call_and_catch(action)
        if self.size > 1:
            messages: list[str | None] = [None] * self.size
            own = None if error is None else f"rank {self.rank}: {error}"
            dist.all_gather_object(messages, own, group=self._group)
            failed = [message for message in messages if message is not None]
            if failed and error is None:
                error = HardmineError("; ".join(failed))
        if error is not None:
            raise error

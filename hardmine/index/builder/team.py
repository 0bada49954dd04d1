"""The processes that build one index together; a lone process is a team of one."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

from hardmine.errors import HardmineError

T = TypeVar("T")
# Ranks finish as far apart as one shard takes, which gloo's half hour need not cover.
_PATIENCE = datetime.timedelta(days=7)


class Team:
    """Ranks of torch.distributed, coordinated over gloo whatever carries the training.

    An error on one rank ends the work on all of them, with the same message, instead of leaving
    the others waiting. Leave it as a context manager.
    """

    def __init__(self) -> None:
        self.rank, self.size = 0, 1
        self._group: Any = None
        if dist.is_available() and dist.is_initialized():
            self.rank, self.size = dist.get_rank(), dist.get_world_size()
        if self.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=_PATIENCE)

    def __enter__(self) -> Team:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Part; a group of gloo that is left to the exit of the process can abort it there."""
        if self._group is not None:
            dist.destroy_process_group(self._group)
            self._group = None

    def lead(self, action: Callable[[], T]) -> T:
        """Let rank 0 do something; every rank gets the result, or the error."""
        result, error = _attempt(action) if self.rank == 0 else (None, None)
        if self.size > 1:
            box = [(result, None if error is None else str(error))]
            dist.broadcast_object_list(box, src=0, group=self._group)
            result, message = box[0]
            if error is None and message is not None:
                error = HardmineError(message)
        if error is not None:
            raise error
        return cast(T, result)

    def share(self, action: Callable[[], None]) -> None:
        """Let every rank do its part, and go on only when all have succeeded."""
        _, error = _attempt(action)
        if self.size > 1:
            messages: list[Any] = [None] * self.size
            mine = None if error is None else f"rank {self.rank}: {error}"
            dist.all_gather_object(messages, mine, group=self._group)
            failed = [message for message in messages if message is not None]
            if failed and error is None:
                error = HardmineError("; ".join(failed))
        if error is not None:
            raise error


def _attempt(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    try:
        return action(), None
    except Exception as error:
        return None, error

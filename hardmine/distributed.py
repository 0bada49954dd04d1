"""The ranks of ``torch.distributed``: run something on rank 0 and give the result to every rank.

Without an initialized process group, the process counts as rank 0 of one.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import torch.distributed as dist

from hardmine.errors import HardmineError, InputError

__all__ = ["RankGroup", "rank_and_world_size"]

T = TypeVar("T")
# A rank may wait for another as long as one shard takes. gloo's default of 30 min can be too short.
_TIMEOUT = datetime.timedelta(days=7)


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of processes: (0, 1) outside ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


class RankGroup:
    """All ranks of ``torch.distributed``, or this process alone.

    The ranks talk over gloo, so that nothing touches a GPU whatever backend the training uses. An
    error on one rank is raised on all of them, so that none waits for a rank that has failed. Every
    rank must do the same with it. Use it as a context manager.
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
        """Run an action on rank 0; every rank gets its result, or its error.

        The result must be picklable. An error is raised on rank 0 as it is, and on the other ranks
        as a ``HardmineError`` with the same message.
        """
        value, error = _call(action) if self.rank == 0 else (None, None)
        if self.size > 1:
            message = [(value, None if error is None else str(error))]
            dist.broadcast_object_list(message, src=0, group=self._group)
            value, text = message[0]
            if error is None and text is not None:
                error = HardmineError(text)
        if error is not None:
            raise error
        return cast(T, value)

    def on_every_rank(self, action: Callable[[], None]) -> None:
        """Run an action on every rank, and return when all have finished it without error."""
        _, error = _call(action)
        own = None if error is None else f"rank {self.rank}: {error}"
        failed = [message for message in self.gather(own) if message is not None]
        if failed and error is None:
            error = HardmineError("; ".join(failed))
        if error is not None:
            raise error

    def require_same(self, values: Mapping[str, Any], what: str) -> None:
        """Check that values are the same on every rank, and say on all ranks if they are not.

        Args:
            values: Values of this rank by name.
            what: Whose they are, for the message, e.g. "HardMiner".
        """
        ranks = self.gather(dict(values))
        for name in values:
            of_ranks = [each[name] for each in ranks]
            other = next((row for row, value in enumerate(of_ranks) if value != of_ranks[0]), None)
            if other is not None:
                raise InputError(
                    f"{what} must be the same on every rank: {name} is {of_ranks[0]!r:.100} on "
                    f"rank 0 and {of_ranks[other]!r:.100} on rank {other}"
                )

    def gather(self, value: Any) -> list[Any]:
        """The picklable values of all ranks, on every rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value, group=self._group)
        return values


def _call(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return an action's result and its exception, of which one is None."""
    try:
        return action(), None
    except Exception as error:
        return None, error

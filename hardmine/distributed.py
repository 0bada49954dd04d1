"""Run something on rank 0 of ``torch.distributed`` and give the result to every rank.

Without an initialized process group, the process counts as rank 0 of one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch.distributed as dist

from hardmine.errors import HardmineError

T = TypeVar("T")


def rank_and_world_size() -> tuple[int, int]:
    """Rank of this process and number of processes: (0, 1) outside ``torch.distributed``."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def is_rank_zero() -> bool:
    """Whether this process is rank 0, or the only one."""
    return rank_and_world_size()[0] == 0


def broadcast_from_rank_zero(make: Callable[[], T], *, group: Any = None) -> T:
    """Call ``make`` on rank 0 and return its value on every rank.

    Every rank must call this. An exception on rank 0 is raised there as it is, and on the other
    ranks as a ``HardmineError`` with the same message.

    Args:
        make: Returns a value that can be pickled. Only rank 0 calls it.
        group: Process group to broadcast over; the default group if None.
    """
    rank, world_size = rank_and_world_size()
    value, error = call_and_catch(make) if rank == 0 else (None, None)
    if world_size > 1:
        message = [(value, None if error is None else str(error))]
        dist.broadcast_object_list(message, src=0, group=group)
        value, text = message[0]
        if error is None and text is not None:
            error = HardmineError(text)
    if error is not None:
        raise error
    return cast(T, value)


def call_and_catch(action: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return an action's result and its exception, of which one is None."""
    try:
        return action(), None
    except Exception as error:
        return None, error

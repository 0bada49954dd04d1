"""One process works, all get what it made."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch.distributed

T = TypeVar("T")


def is_rank_zero() -> bool:
    """Whether this process is rank 0, or the only one."""
    return not _together() or torch.distributed.get_rank() == 0


def from_rank_zero(make: Callable[[], T]) -> T:
    """Call ``make`` on rank 0 alone and give its value to every rank.

    Every rank must call this. ``make`` must not raise, or the others wait in vain: errors travel
    as values.
    """
    if not _together():
        return make()
    box: list[Any] = [make() if is_rank_zero() else None]
    torch.distributed.broadcast_object_list(box, src=0)
    value: T = box[0]
    return value


def _together() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()

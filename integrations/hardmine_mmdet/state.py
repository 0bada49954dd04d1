"""The hook's state after each validation, in files beside the checkpoints.

mmengine saves the checkpoint of an epoch before it validates that epoch. The checkpoint therefore
lacks the round that follows, and resuming from it needs this state as well.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process

from hardmine.distributed import RankGroup


class StateFolder:
    """One file a validation, named by the number of iterations trained.

    Args:
        folder: Created when the first state is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, iterations: int, state: dict[str, Any]) -> None:
        """Write the state on rank 0, atomically: a kill leaves the old file or the new one."""
        if not is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        unfinished = self._file(iterations).with_suffix(".part")
        with unfinished.open("wb") as stream:
            torch.save(_deduplicated(state, []), stream)
            stream.flush()
            os.fsync(stream.fileno())
        unfinished.replace(self._file(iterations))

    def load(self, iterations: int) -> dict[str, Any] | None:
        """Read on rank 0 and broadcast the state after so many iterations; None if not saved."""
        file = self._file(iterations)

        def read() -> dict[str, Any] | None:
            if not file.exists():
                return None
            state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
            return state

        with RankGroup() as ranks:
            return ranks.on_rank_zero(read)

    def _file(self, iterations: int) -> Path:
        return self.folder / f"iter_{iterations}.pth"


def _deduplicated(value: Any, known: list[torch.Tensor]) -> Any:
    """Replace equal tensors by one object, which torch writes once.

    All ranks draw by the same weights, and the state holds those of each rank.
    """
    if isinstance(value, dict):
        return {key: _deduplicated(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [_deduplicated(each, known) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    for each in known:
        if each.dtype == value.dtype and torch.equal(each, value):
            return each
    known.append(value)
    return value

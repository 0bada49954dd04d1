"""The hook's state after each round, in files beside the checkpoints.

mmengine saves the checkpoint of an epoch before it validates that epoch, so the round that
follows is not in it; resuming from the checkpoint needs both.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import broadcast_object_list, is_main_process


class StateFolder:
    """One file a round, named by the iterations done.

    Args:
        folder: Made when the first state is saved.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, iterations: int, state: dict[str, Any]) -> None:
        """Write the state on the main process; a kill leaves the old file or the new one."""
        if not is_main_process():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        part = self._file(iterations).with_suffix(".part")
        with part.open("wb") as stream:
            torch.save(_shared(state, []), stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(self._file(iterations))

    def load(self, iterations: int) -> dict[str, Any] | None:
        """The state after that many iterations, on every rank; None if none was saved."""
        box: list[Any] = [None]
        if is_main_process() and self._file(iterations).exists():
            box[0] = torch.load(self._file(iterations), map_location="cpu", weights_only=True)
        broadcast_object_list(box)
        state: dict[str, Any] | None = box[0]
        return state

    def _file(self, iterations: int) -> Path:
        return self.folder / f"iter_{iterations}.pth"


def _shared(value: Any, known: list[torch.Tensor]) -> Any:
    """Make equal tensors one, which torch writes once: all ranks draw by the same weights."""
    if isinstance(value, dict):
        return {key: _shared(each, known) for key, each in value.items()}
    if isinstance(value, list):
        return [_shared(each, known) for each in value]
    if not isinstance(value, torch.Tensor):
        return value
    for each in known:
        if each.dtype == value.dtype and torch.equal(each, value):
            return each
    known.append(value)
    return value

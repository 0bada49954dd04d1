"""The state after each validation, in files beside the checkpoints.

Some trainers (mmengine, Ultralytics) save the checkpoint of an epoch before its validation is
over. The checkpoint therefore lacks the round that follows, and resuming from it needs this state.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from hardmine.distributed import RankGroup, rank_and_world_size
from hardmine.sampler import HardMiningSampler


class StateFolder:
    """One file a validation, named by how far training was.

    Args:
        folder: Created when the first state is saved.
        unit: What training is counted in, which begins the names of the files.
    """

    def __init__(self, folder: Path, *, unit: str = "iter") -> None:
        self.folder = folder
        self._unit = unit

    def save(self, count: int, state: dict[str, Any]) -> None:
        """Write the state after so many, on rank 0."""
        save_state(self._file(count), state)

    def load(self, count: int) -> dict[str, Any] | None:
        """Read on rank 0 and broadcast the state after so many; None if not saved."""
        return load_state(self._file(count))

    def newest(self, count: int, saved: dict[str, Any] | None) -> dict[str, Any] | None:
        """The state after so many: that of the file, which a validation may have made newer.

        Args:
            count: How far training was.
            saved: The state in the checkpoint; None if it has none. A file of another run, which
                was started in this folder before or since, does not count.
        """
        newer = self.load(count)
        if saved is None or newer is None or newer.get("run") != saved.get("run"):
            return saved
        return newer

    def clear(self) -> None:
        """Remove the states of a run that was here before, on rank 0."""
        if rank_and_world_size()[0] == 0:
            for file in self.folder.glob(f"{self._unit}_*.pth"):
                file.unlink()

    def _file(self, count: int) -> Path:
        return self.folder / f"{self._unit}_{count}.pth"


def save_state(file: Path, state: dict[str, Any]) -> None:
    """Write a state on rank 0, atomically: a kill leaves the old file or the new one."""
    if rank_and_world_size()[0] != 0:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(".part")
    with unfinished.open("wb") as stream:
        torch.save(_deduplicated(state, []), stream)
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.replace(file)


def load_state(file: Path) -> dict[str, Any] | None:
    """Read a state on rank 0 and broadcast it; None if there is no such file."""

    def read() -> dict[str, Any] | None:
        if not file.exists():
            return None
        state: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
        return state

    with RankGroup() as ranks:
        return ranks.on_rank_zero(read)


def state_after_epoch(sampler: HardMiningSampler, epoch: int) -> dict[str, Any]:
    """The state of a sampler whose epoch is over: the next one begins with the weights last set.

    What a batch sampler dropped of the epoch, or a limit of batches left of it, is not drawn later.
    """
    state = sampler.state_dict()
    return state | {
        "epoch": epoch + 1,
        "position": 0,
        "started": False,
        "weights": state["next_weights"],
        "begun_weights": [],
    }


def state_of_new_loader(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a sampler whose loader is made anew: what that drew ahead is drawn again.

    New weights then count from the next pass on, which the old loader may have begun.
    """
    state = state | {"begun_weights": []}
    if state["position"] == 0:
        state |= {"started": False, "weights": state["next_weights"]}
    return state


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

"""What a miner carries from round to round, and its form in a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.errors import InputError, require_keys
from hardmine.mining.assess import Patience
from hardmine.mining.need import Need
from hardmine.records import numbers, plain_values

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class MinerState:
    """All state of a miner.

    Attributes:
        class_names: C names.
        number: Rounds so far, failed ones included.
        need: Of the last round that did not fail; None before the first.
        patience: What tells whether boosts help each class.
        weights: (N,) the last weights; None before the first round.
        conditions: Texts of those that the last round found.
    """

    class_names: tuple[str, ...]
    number: int
    need: Need | None
    patience: Patience
    weights: Floats | None
    conditions: tuple[str, ...] = ()

    @classmethod
    def fresh(cls, class_names: tuple[str, ...]) -> MinerState:
        """Before the first round."""
        return cls(class_names, 0, None, Patience.fresh(len(class_names)), None)

    def to_state(self) -> dict[str, Any]:
        """Plain values and tensors."""
        return {
            "class_names": list(self.class_names),
            "number": self.number,
            "levels": None if self.need is None else plain_values(self.need.level),
            "patience": self.patience.to_state(),
            "weights": _to_tensor(self.weights),
            "conditions": list(self.conditions),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], class_names: tuple[str, ...]) -> MinerState:
        """Read what ``to_state`` wrote.

        Raises:
            InputError: If the state is incomplete or of other classes.
        """
        require_keys(state, cls.fresh(class_names).to_state(), "miner")
        saved = tuple(state["class_names"])
        if saved != class_names:
            raise InputError(
                f"the saved miner has {len(saved)} classes ({', '.join(saved[:3])} ...), this one "
                f"{len(class_names)} ({', '.join(class_names[:3])} ...); "
                "resume with the same classes"
            )
        need = None
        if state["levels"] is not None:
            level = numbers(state["levels"])
            # The next round reads the levels alone.
            need = Need(class_names, np.zeros(len(level)), level, level)
        return cls(
            class_names,
            int(state["number"]),
            need,
            Patience.from_state(state["patience"]),
            _to_array(state["weights"]),
            tuple(state["conditions"]),
        )


def _to_tensor(values: Floats | None) -> torch.Tensor | None:
    return None if values is None else torch.from_numpy(values.copy())


def _to_array(values: torch.Tensor | None) -> Floats | None:
    return None if values is None else values.numpy().astype(np.float64)

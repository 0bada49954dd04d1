"""Boosts that do not help fade: a class whose AP does not answer is asked for less."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Patience:
    """What is remembered of C classes.

    Attributes:
        best: (C,) best AP seen, NaN if none yet.
        waited: (C,) int64 boosted rounds since AP last rose.
        boosted: (C,) bool, whether the last round boosted the class.
    """

    best: Floats
    waited: npt.NDArray[np.int64]
    boosted: npt.NDArray[np.bool_]

    @classmethod
    def fresh(cls, num_classes: int) -> Patience:
        """Nothing seen yet."""
        return cls(
            np.full(num_classes, np.nan),
            np.zeros(num_classes, np.int64),
            np.zeros(num_classes, bool),
        )

    def seeing(self, ap: Floats, *, min_gain: float = 0.005) -> Patience:
        """Take in a round's AP: (C,), NaN unknown.

        A rise of ``min_gain`` over the best starts the wait anew; a class that was not boosted
        is forgiven one round.
        """
        better = (ap > self.best + min_gain) | (np.isnan(self.best) & ~np.isnan(ap))
        waited = np.where(self.boosted, self.waited + 1, np.maximum(self.waited - 1, 0))
        waited = np.where(np.isnan(ap), self.waited, np.where(better, 0, waited))
        return Patience(np.where(better, ap, self.best), waited, self.boosted)

    def factor(self, patience: int | None, *, decay: float = 0.5, least: float = 0.1) -> Floats:
        """(C,) what need is multiplied by: 1 until ``patience`` rounds are waited, then less."""
        if patience is None:
            return np.ones(len(self.best))
        late = np.maximum(self.waited - patience + 1, 0)
        return np.maximum(decay ** late.astype(np.float64), least)

    def to_state(self) -> dict[str, list[Any]]:
        """Plain values; unknown is None."""
        return {
            "best": [None if np.isnan(value) else float(value) for value in self.best],
            "waited": self.waited.tolist(),
            "boosted": self.boosted.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, list[Any]]) -> Patience:
        """What ``to_state`` said."""
        return cls(
            np.array([np.nan if value is None else value for value in state["best"]], np.float64),
            np.array(state["waited"], np.int64),
            np.array(state["boosted"], bool),
        )

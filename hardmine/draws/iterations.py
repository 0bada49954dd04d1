"""How far the iterators of a sampler have drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from operator import length_hint

import torch


@dataclass
class Pass:
    """One epoch as it is drawn: what fixes its stream, and how far the stream has been drawn."""

    epoch: int
    weights: torch.Tensor | None
    start: int = 0  # where in the stream it was begun or resumed
    drawn_before: int = 0  # by this rank and this iterator, in earlier passes
    position: int = field(init=False)  # drawn of the stream by all ranks, those ahead included

    def __post_init__(self) -> None:
        self.position = self.start


@dataclass(eq=False)
class Iteration:
    """One iterator of the sampler.

    Attributes:
        passes: The passes that it began, the running one last.
        world_size: How many ranks share the stream.
        taken: Images that this rank took from the stream, those ahead included.
        ahead: Images that are taken and not handed out, but for the last of their chunk.
        kept_back: 1 while that one is not handed out.
        dropped: Images at the end of this rank's epoch that never come into a batch.
        closed: Whether it ended or was dropped.
        exhausted: Whether it ended with its epoch.
    """

    passes: tuple[Pass, ...]
    world_size: int
    taken: int = 0
    ahead: Iterator[int] = field(default_factory=lambda: iter(()))
    kept_back: int = 0
    dropped: int = 0
    closed: bool = False
    exhausted: bool = False

    @property
    def num_ahead(self) -> int:
        """Images that are taken and not handed out."""
        return length_hint(self.ahead) + self.kept_back

    @property
    def handed_out(self) -> int:
        """Images that this rank handed out."""
        return self.taken - self.num_ahead

    def take(self, chunk: list[int]) -> None:
        """Take images and one more, which is kept back."""
        self.ahead, self.kept_back = iter(chunk), 1
        count = len(chunk) + 1
        self.taken += count
        self.passes[-1].position += count * self.world_size

    def close(self) -> None:
        """Give back what lay ahead."""
        ahead = self.num_ahead
        self.taken -= ahead
        self.passes[-1].position -= ahead * self.world_size
        self.ahead, self.kept_back, self.closed = iter(()), 0, True

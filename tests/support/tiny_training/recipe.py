"""The recipe of the tiny CLIP: every number that its training depends on."""

from __future__ import annotations

from typing import NamedTuple


class Phase(NamedTuple):
    """A stretch of training on views of one kind.

    Attributes:
        side: Pixels of a view; a multiple of 32.
        batch: Views a step.
        steps: How long it lasts.
        whole: Share of views that are whole scenes.
        part: Share that are any part of a scene; the others are close around one object.
        reach: Side of a close view in object sizes, at most.
        sentences: Whether the text tower takes part.
    """

    side: int
    batch: int
    steps: int
    whole: float
    part: float
    reach: float
    sentences: bool = True


class Cycle(NamedTuple):
    """Phases under one cosine of the learning rate.

    Attributes:
        phases: What is shown.
        peak: Highest learning rate.
        horizon: Steps over which it would fall to zero; the cycle may end before.
    """

    phases: tuple[Phase, ...]
    peak: float
    horizon: int


# From single things to parts of scenes. Convolutions do not mind the size, small views cost little,
# and in them a thing has about the scale in pixels that it has in a whole scene at full size.
CYCLES = (
    Cycle(
        (
            Phase(64, 128, 1500, 0.0, 0.05, 2.0, sentences=False),
            Phase(96, 128, 900, 0.0, 0.2, 3.0),
            Phase(128, 128, 600, 0.1, 0.3, 5.0),
        ),
        peak=2e-3,
        horizon=3450,
    ),
    Cycle(
        (Phase(128, 128, 850, 0.15, 0.35, 5.0),),
        peak=8e-4,
        horizon=1000,
    ),
)
SEED = 20231
POOL_SEED = 1001
POOL_SIZE = 44_000
# Mild: rare kinds must be learned too. The long tail belongs to the data that are searched.
POOL_TAIL = 3.0
VALIDATION_SEED = 2
WARMUP = 150
DECAY = 0.05
AVERAGING = 0.997

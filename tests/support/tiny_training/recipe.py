"""The recipe of the tiny CLIP: every number that its training depends on."""

from __future__ import annotations

from typing import NamedTuple


class Phase(NamedTuple):
    """A number of training steps on views of one size.

    Attributes:
        side: Pixels of a view; a multiple of 32.
        batch: Views in a step.
        steps: Number of steps.
        whole: Share of views that are whole scenes.
        part: Share of views that are a random part of a scene; the others surround one object.
        reach: Largest side of a view around one object, as a multiple of the object's side.
        sentences: Whether to train the text tower.
    """

    side: int
    batch: int
    steps: int
    whole: float
    part: float
    reach: float
    sentences: bool = True


class Cycle(NamedTuple):
    """Phases that share one cosine schedule of the learning rate.

    Attributes:
        phases: The phases, in order.
        peak: Highest learning rate.
        horizon: Steps after which the rate reaches zero; the cycle may end earlier.
    """

    phases: tuple[Phase, ...]
    peak: float
    horizon: int


# Views grow from single objects to parts of scenes. A convolutional tower accepts any size, small
# views are cheap, and an object has about as many pixels in them as in a whole scene at full size.
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
# A mild long tail (3 : 1), so that rare classes are learned too.
POOL_TAIL = 3.0
VALIDATION_SEED = 2
WARMUP = 150
DECAY = 0.05
AVERAGING = 0.997

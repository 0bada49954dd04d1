"""Is mining worth it here: what it gained in the benchmarks that had the same weakness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from hardmine.mining.weights import WeightRules
from hardmine.report.gaps import ClassGap
from hardmine.report.text_slices import TextSlice

_RARE, _CONDITION = "rare classes", "a condition that training seldom shows"


@dataclass(frozen=True)
class Measured:
    """What mining gained over uniform draws in one benchmark, in points of AP50.

    Attributes:
        weakness: What was weak: classes, or the images of a condition.
        data: What images.
        passes: How often each image was drawn in the whole training, on average.
        weak: Gain where it was weak, and its standard error.
        all: Gain over all images in the frequent classes, and its standard error.
    """

    weakness: str
    data: str
    passes: int
    weak: tuple[float, float]
    all: tuple[float, float]

    @property
    def sentence(self) -> str:
        """For people."""
        (weak, weak_error), (all_, all_error) = self.weak, self.all
        return (
            f"{self.weakness}, {self.data}, each image seen {self.passes} times: AP50 "
            f"{weak:+.1f} ± {weak_error:.1f} there, {all_:+.1f} ± {all_error:.1f} over "
            "the frequent classes"
        )


# From tests/benchmarks/results/roads.json. Rare are bicycle, rider and motorcycle, the others car,
# person, truck and bus. Night is 4 % of training and 39 % of validation and test; for rare classes
# photos are as they come.
MEASURED = (
    Measured(_CONDITION, "road photos", 2, weak=(1.1, 0.2), all=(0.5, 0.2)),
    Measured(_CONDITION, "road photos", 7, weak=(0.6, 0.2), all=(0.1, 0.2)),
    Measured(_CONDITION, "road photos", 12, weak=(0.9, 0.4), all=(-0.1, 0.3)),
    Measured(_CONDITION, "road photos", 40, weak=(-0.1, 0.1), all=(-0.1, 0.1)),
    Measured(_RARE, "road photos", 2, weak=(0.1, 0.1), all=(0.2, 0.2)),
    Measured(_RARE, "road photos", 7, weak=(0.4, 0.4), all=(0.5, 0.2)),
    Measured(_RARE, "road photos", 12, weak=(0.8, 0.2), all=(0.0, 0.2)),
    Measured(_RARE, "road photos", 40, weak=(0.0, 0.0), all=(0.0, 0.1)),
)


def outlook(
    gaps: Sequence[ClassGap], slices: Sequence[TextSlice], *, epochs: float | None = None
) -> tuple[Measured, ...]:
    """The benchmarks that are like a report.

    Args:
        gaps: The classes of the report, diagnosed.
        slices: Its slices.
        epochs: How often the training will show each image; None for all that was measured.

    Returns:
        The benchmarks with a weakness that the report shows; of each weakness and kind of images
        the one whose images were seen most nearly ``epochs`` times, if that is known: of those
        that were mined as such a training is, throughout or in the last quarter alone.
    """
    found = {_RARE} if any("few" in gap.kinds for gap in gaps) else set()
    if any(one.fails and one.seldom for one in slices):
        found.add(_CONDITION)
    alike = [one for one in MEASURED if one.weakness in found]
    if epochs is None:
        return tuple(alike)
    most = WeightRules().max_passes
    alike = [one for one in alike if (one.passes > most) == (epochs > most)]

    def distance(one: Measured) -> float:
        return abs(math.log(one.passes / epochs))

    nearest: dict[tuple[str, str], Measured] = {}
    for one in alike:
        key = (one.weakness, one.data)
        if key not in nearest or distance(one) < distance(nearest[key]):
            nearest[key] = one
    return tuple(nearest.values())

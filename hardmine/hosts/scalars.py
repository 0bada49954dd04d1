"""What a round did, as numbers and as a line for a trainer's log."""

from __future__ import annotations

import math

from hardmine.history import Round

_NUM_WEAKEST = 10


def scalars(done: Round) -> dict[str, float]:
    """Numbers of a round for TensorBoard and the like; none if the round failed.

    Besides totals these are AP and need of the ten weakest classes. A class that leaves the ten
    gets no more values, which charts show as a gap.

    Returns:
        ``hardmine/weak_classes``; ``hardmine/moved_share``, the share of draws that mining moved;
        ``hardmine/effective_size``, of the weights, in images; ``hardmine/seconds``; and
        ``hardmine/need/<class>`` and ``hardmine/ap/<class>``.
    """
    if done.draws is None:
        return {}
    values = {
        "hardmine/weak_classes": float(len(done.weak)),
        "hardmine/moved_share": done.draws.moved_share,
        "hardmine/effective_size": done.draws.effective_size,
        "hardmine/seconds": done.seconds,
    }
    for name in done.weak[:_NUM_WEAKEST]:
        row = done.class_names.index(name)
        values[f"hardmine/need/{name}"] = float(done.need[row])
        if not math.isnan(done.ap[row]):
            values[f"hardmine/ap/{name}"] = float(done.ap[row])
    return values


def summary(done: Round) -> str:
    """One line about a round that did not fail."""
    draws = done.draws
    assert draws is not None
    weakest = ", ".join(done.weak[:5]) or "none"
    return (
        f"round {done.number}: weak {weakest}{done.found}; {draws.num_raised} images raised, "
        f"{100 * draws.moved_share:.0f} % of the draws moved, effective size "
        f"{draws.effective_size:.0f} of {draws.num_images}, {done.seconds:.1f} s"
    )

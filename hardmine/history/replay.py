"""From the record of a round back to its wanted weights and targets."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np
import scipy.sparse

from hardmine.errors import IndexMismatch, InputError
from hardmine.history.rounds import Round, weights_digest
from hardmine.mining.confusion import Confusion, Pairs
from hardmine.mining.mine import MiningData, mine
from hardmine.mining.queries import Queries
from hardmine.mining.targets import TargetRules
from hardmine.mining.weights import WeightRules
from hardmine.records import names_to_rows


def replay_round(
    done: Round, ground: MiningData, *, detections: scipy.sparse.csc_matrix | None = None
) -> Round:
    """Ask again what a recorded round asked, and fill in its wanted weights and targets.

    Args:
        done: A round, as ``read_rounds`` gives it.
        ground: Index, labels and training loop, as they were.
        detections: Those the round was given, if any.

    Raises:
        InputError: If the round failed, or is of a version that weighed otherwise.
        IndexMismatch: If index, labels or encoder are not those of the round: the weights differ.
    """
    if done.error:
        raise InputError(f"round {done.number} failed and made no weights: {done.error}")
    settings = done.settings
    now = {"encoder": ground.book.encoder.fingerprint, "num_images": len(ground)}
    for name, value in now.items():
        if settings[name] != value:
            raise IndexMismatch(
                f"round {done.number} was mined with {name} {settings[name]}, got {value}"
            )
    weighing = [entry.name for entry in fields(WeightRules)]
    missing = sorted(set(weighing) - set(settings))
    if missing:
        raise InputError(
            f"round {done.number} does not say its {', '.join(missing)}: another version of "
            "hardmine made it, and can replay it"
        )
    if settings["detections"] and detections is None:
        raise InputError(f"round {done.number} looked at detections; pass the same again")
    queries = Queries(
        names=tuple(asked.names for asked in done.asked),
        class_rows=names_to_rows([asked.class_name for asked in done.asked], done.class_names),
        conditions=tuple(asked.condition for asked in done.asked),
        need=np.array([asked.need for asked in done.asked], np.float64),
    )
    aim = mine(
        queries,
        ground,
        detections=detections,
        confusion=Confusion(
            seen_on=_pairs(settings["confusion"]), taken_for=_pairs(settings.get("taken_for", ()))
        ),
        answers=settings["answers"],
        rules=TargetRules(**settings["rules"]),
        weighing=WeightRules(**{name: settings[name] for name in weighing}),
    )
    if weights_digest(aim.weights) != done.digest:
        raise IndexMismatch(
            f"replaying round {done.number} gives other weights; the index or the labels have "
            "changed since, another version of hardmine made it, or the machine computes "
            "similarities differently"
        )
    return replace(
        done, wanted=aim.weights, targets=aim.targets, evened=aim.evened, labelled=aim.labelled
    )


def _pairs(rows: Iterable[Sequence[Any]]) -> Pairs:
    return tuple((row, other, share) for row, other, share in rows)

"""Why an image has its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.history.rounds import QueryRecord, Round
from hardmine.mining.targets import KINDS
from hardmine.records import rows_of


@dataclass(frozen=True)
class Reason:
    """One query that an image answers.

    Attributes:
        asked: The query: its phrases, class, condition, need and trust.
        kind: What the image is to it, one of ``KINDS``.
        strength: How far the image answers it, in [0, 1].
        score: Cosine similarity, NaN where the image is not in the index.
        boost: need × strength. Those of one class add up as in ``Targets.boost``, and of classes
            the largest counts.
    """

    asked: QueryRecord
    kind: str
    strength: float
    score: float
    boost: float


@dataclass(frozen=True)
class Explanation:
    """An image's weight and where it comes from; as text, a few lines for people.

    Attributes:
        image_id: Which image.
        wanted: Its weight by the reasons below.
        weight: What was left of it for how often the image had been drawn; NaN where that is not
            known, in a round of ``replay``.
        lead: Draws that it was ahead of the mean image.
        expected_draws: In an epoch of as many draws as images, by ``weight`` if that is known.
        reasons: Queries that it answers, the strongest first.
        evened: How many times as often as the mean image it would be drawn if nothing were asked:
            for how many objects it shows, how rare they are and how often taken for others, for a
            rare condition, and for what probably lacks a label.
        labelled: How much of what it shows probably has a label, the rare counting more.
    """

    image_id: Any
    wanted: float
    weight: float
    lead: float
    expected_draws: float
    reasons: tuple[Reason, ...]
    evened: float = 1.0
    labelled: float = 1.0

    def __str__(self) -> str:
        known = not np.isnan(self.weight)
        lines = [
            f"image {self.image_id}: weight {self.weight if known else self.wanted:.3f}, "
            f"drawn {self.expected_draws:.2f} times an epoch"
        ]
        if known and self.weight != self.wanted:
            lines.append(
                f"  before fading {self.wanted:.3f}, "
                f"{abs(self.lead):.1f} draws {'behind' if self.lead < 0 else 'ahead of'} the mean"
            )
        for reason in self.reasons:
            asked = reason.asked
            trust = "" if np.isnan(asked.precision) else f", trust {asked.precision:.2f}"
            lines.append(
                f"  {reason.kind} of {asked.names[0]!r}: boost {reason.boost:.3f} = "
                f"need {asked.need:.2f} × strength {reason.strength:.2f}"
                f" (similarity {reason.score:.3f}{trust})"
            )
        if not self.reasons:
            lines.append("  no query wants it")
        if self.evened != 1:
            lines.append(
                f"  for what it shows, how much, how rare, taken for what: factor {self.evened:.3f}"
            )
        if self.labelled < 0.995:
            lines.append(f"  of which {self.labelled:.0%} probably has a label")
        return "\n".join(lines)


def explain_image(done: Round, ids: npt.NDArray[Any], image_id: Any) -> Explanation:
    """Say why an image has its weight in a round.

    Args:
        done: A round with weights and targets.
        ids: (N,) image ids in the order of the sampler's rows.
        image_id: Which image.
    """
    if done.targets is None or done.wanted is None:
        raise InputError(f"round {done.number} has no targets to explain: {done.error or 'replay'}")
    row = int(rows_of(ids, [image_id])[0])
    if row < 0:
        raise InputError(f"no image {image_id!r} is drawn from; ids are such as {ids[0]!r}")
    targets = done.targets.take(done.targets.image_rows == row)
    reasons = [
        Reason(
            asked=done.asked[query],
            kind=KINDS[kind],
            strength=float(strength),
            score=float(score),
            boost=done.asked[query].need * float(strength),
        )
        for query, kind, strength, score in zip(
            targets.query_rows.tolist(),
            targets.kinds.tolist(),
            targets.strengths,
            targets.scores,
            strict=True,
        )
    ]
    drawn_by = done.wanted if done.weights is None else done.weights
    return Explanation(
        image_id=image_id,
        wanted=float(done.wanted[row]),
        weight=float("nan") if done.weights is None else float(done.weights[row]),
        lead=0.0 if done.lead is None else float(done.lead[row]),
        expected_draws=float(drawn_by[row] / drawn_by.mean()),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.boost)),
        evened=1.0 if done.evened is None else float(done.evened[row]),
        labelled=1.0 if done.labelled is None else float(done.labelled[row]),
    )

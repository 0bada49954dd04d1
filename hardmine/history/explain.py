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
        query: Its phrases, class, context, need and trust.
        kind: What the image is to it, one of ``KINDS``.
        strength: How far the image answers it, in [0, 1].
        score: Cosine similarity, NaN where the image is not in the index.
        boost: need × strength. ``Targets.boost`` says how several are combined.
    """

    query: QueryRecord
    kind: str
    strength: float
    score: float
    boost: float


@dataclass(frozen=True)
class Explanation:
    """An image's weight and where it comes from; as text, a few lines for people.

    Attributes:
        image_id: Which image.
        demanded: Its weight before exposure counts.
        weight: Its sampling weight.
        extra_draws: How many more draws it has had than the mean image.
        expected_draws: Draws in an epoch of as many draws as images.
        reasons: The queries that it answers, the strongest first.
        balance: How many times as often as the mean image it would be drawn if nothing were weak:
            by its objects, how rare they are and what they are mistaken for, by a rare context,
            and by what probably lacks a label.
        label_share: How much of what it shows has a label; rare objects count more.
    """

    image_id: Any
    demanded: float
    weight: float
    extra_draws: float
    expected_draws: float
    reasons: tuple[Reason, ...]
    balance: float = 1.0
    label_share: float = 1.0

    def __str__(self) -> str:
        lines = [
            f"image {self.image_id}: weight {self.weight:.3f}, "
            f"drawn {self.expected_draws:.2f} times an epoch"
        ]
        if self.weight != self.demanded:
            more = "fewer" if self.extra_draws < 0 else "more"
            lines.append(
                f"  {self.demanded:.3f} before exposure counts "
                f"({abs(self.extra_draws):.1f} draws {more} than the mean image so far)"
            )
        for reason in self.reasons:
            query = reason.query
            trust = "" if np.isnan(query.precision) else f", precision {query.precision:.2f}"
            lines.append(
                f"  {reason.kind} of {query.phrases[0]!r}: boost {reason.boost:.3f} = "
                f"need {query.need:.2f} × strength {reason.strength:.2f}"
                f" (similarity {reason.score:.3f}{trust})"
            )
        if not self.reasons:
            lines.append("  it answers no query")
        if self.balance != 1:
            lines.append(f"  balance of classes, contexts and confusion: factor {self.balance:.3f}")
        if self.label_share < 0.995:
            lines.append(f"  {self.label_share:.0%} of what it shows probably has a label")
        return "\n".join(lines)


def explain_image(done: Round, ids: npt.NDArray[Any], image_id: Any) -> Explanation:
    """Say why an image has its weight in a round.

    Args:
        done: A round with its result: the miner's last one, or a replayed one.
        ids: (N,) image ids in the order of the sampler's rows.
        image_id: Which image.
    """
    if done.result is None:
        cause = done.error or "it was read from a file; replay it first"
        raise InputError(f"round {done.number} has no targets to explain: {cause}")
    row = int(rows_of(ids, [image_id])[0])
    if row < 0:
        raise InputError(f"image {image_id!r} is not in the training set; ids look like {ids[0]!r}")
    result = done.result
    targets = result.targets.take(result.targets.image_rows == row)
    reasons = [
        Reason(
            query=done.queries[query],
            kind=KINDS[kind],
            strength=float(strength),
            score=float(score),
            boost=done.queries[query].need * float(strength),
        )
        for query, kind, strength, score in zip(
            targets.query_rows.tolist(),
            targets.kinds.tolist(),
            targets.strengths,
            targets.scores,
            strict=True,
        )
    ]
    extra_draws = result.exposure.extra_draws
    return Explanation(
        image_id=image_id,
        demanded=float(result.demanded[row]),
        weight=float(result.weights[row]),
        extra_draws=0.0 if extra_draws is None else float(extra_draws[row]),
        expected_draws=float(result.weights[row] / result.weights.mean()),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.boost)),
        balance=float(result.balance[row]),
        label_share=float(result.label_share[row]),
    )

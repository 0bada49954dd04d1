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
        weight: Its sampling weight.
        expected_draws: Draws in an epoch of as many draws as images.
        reasons: The queries that it answers, the strongest first.
        balance: How many times as often as the mean image it would be drawn if nothing were weak:
            by its objects, how seldom training shows what validation misses of them, what they are
            mistaken for, and by its density ratio.
        density_ratio: How many times as often validation misses objects in images like it as
            training shows them.
        boosts: Whether boosts count in the weight; they do not with a cap of 1, nor at the end of a
            training.
    """

    image_id: Any
    weight: float
    expected_draws: float
    reasons: tuple[Reason, ...]
    balance: float = 1.0
    density_ratio: float = 1.0
    boosts: bool = True

    def __str__(self) -> str:
        lines = [
            f"image {self.image_id}: weight {self.weight:.3f}, "
            f"drawn {self.expected_draws:.2f} times an epoch"
        ]
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
        elif not self.boosts:
            lines.append("  boosts do not count in this round")
        if self.balance != 1:
            lines.append(f"  balance: factor {self.balance:.3f}")
        if self.density_ratio != 1:
            lines.append(
                f"  validation misses objects in images like it {self.density_ratio:.2f} times as "
                "often as training shows them"
            )
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
        one = ids[0].item()
        raise InputError(f"image {image_id!r} is not in the training set; ids look like {one!r}")
    result = done.result
    rules = None if done.inputs is None else done.inputs.weights
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
    return Explanation(
        image_id=image_id,
        weight=float(result.weights[row]),
        expected_draws=float(result.weights[row] / result.weights.mean()),
        reasons=tuple(sorted(reasons, key=lambda reason: -reason.boost)),
        balance=float(result.balance[row]),
        density_ratio=float(result.density_ratio[row]),
        boosts=rules is None or rules.cap > 1,
    )

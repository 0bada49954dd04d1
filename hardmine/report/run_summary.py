"""What a run's rounds add up to: what was weak, asked and drawn, and whether it helped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.history.rounds import Round
from hardmine.mining.targets import KINDS

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RoundLine:
    """One round in a line. AP and shares lie in [0, 1], gains are AP differences.

    Attributes:
        number: Of the round.
        seconds: What mining took.
        ap: Mean AP over the known classes; NaN if none.
        weak: Classes in need, the weakest first.
        queries: The queries' first phrases.
        mistaken: Which classes were mistaken for which others more than most classes are, the
            largest share first, e.g. ``"bus for car 40 %"``.
        counts: Images of each kind.
        raised: Images drawn more often.
        moved: Share of the draws that mining moved.
        effective: Effective sample size, as a share of the images.
        head: Change of the head classes' share of what is drawn; NaN without labels.
        gain_weak: Mean change of AP of this round's weak classes until the next validation; NaN
            in the last round.
        gain_rest: The same of the other classes.
        error: Why the round failed; empty if it did not.
    """

    number: int
    seconds: float
    ap: float
    weak: tuple[str, ...]
    queries: tuple[str, ...]
    mistaken: tuple[str, ...]
    counts: dict[str, int]
    raised: int
    moved: float
    effective: float
    head: float
    gain_weak: float
    gain_rest: float
    error: str


@dataclass(frozen=True)
class ClassLine:
    """One class over all rounds.

    Attributes:
        name: The class.
        ap: (rounds,) NaN unknown.
        need: (rounds,) after patience.
        boosted: Rounds that asked for it.
        gain_boosted: Sum of its AP changes after rounds that boosted it; NaN if there is none.
        gain_plain: The same after rounds that did not.
        trust: Mean precision of its queries' hits; NaN if never measured.
        draws: How often its images were drawn in the last round, 1 = as uniformly; NaN unknown.
    """

    name: str
    ap: Floats
    need: Floats
    boosted: int
    gain_boosted: float
    gain_plain: float
    trust: float
    draws: float


@dataclass(frozen=True)
class History:
    """Rounds in order and classes, the most boosted first."""

    rounds: tuple[RoundLine, ...]
    classes: tuple[ClassLine, ...]

    @property
    def helped(self) -> tuple[float, float]:
        """Mean AP change from one round to the next of boosted classes, and of the others."""
        return (
            _mean([line.gain_weak for line in self.rounds]),
            _mean([line.gain_rest for line in self.rounds]),
        )


def read_history(rounds: Sequence[Round]) -> History:
    """Add rounds up; all must judge the same classes.

    Raises:
        InputError: If there are none, or their classes differ.
    """
    if not rounds:
        raise InputError("no rounds to show: the file is empty; has HardMiner.step run yet?")
    names = rounds[0].class_names
    for done in rounds:
        if done.class_names != names:
            raise InputError(
                f"round {done.number} judges other classes than round {rounds[0].number}; "
                "is the file of two runs? give each run its own"
            )
    ap = np.stack([done.ap for done in rounds])
    need = np.stack([done.need for done in rounds])
    boosted = np.stack([_boosted(done) for done in rounds])
    gains = _next_known(ap) - ap
    lines = tuple(_round_line(done, gains[row], boosted[row]) for row, done in enumerate(rounds))
    classes = [
        ClassLine(
            name=name,
            ap=ap[:, row],
            need=need[:, row],
            boosted=int(boosted[:, row].sum()),
            gain_boosted=_total(gains[boosted[:, row], row]),
            gain_plain=_total(gains[~boosted[:, row], row]),
            trust=_mean(
                [
                    query.precision
                    for done in rounds
                    for query in done.queries
                    if query.class_name == name
                ]
            ),
            draws=_last_draws(rounds, row),
        )
        for row, name in enumerate(names)
    ]
    classes.sort(key=lambda line: (-line.boosted, -float(line.need.max(initial=0.0)), line.name))
    return History(lines, tuple(classes))


def points(value: float) -> str:
    """A difference of AP in points, signed; a dash where unknown.

    >>> points(0.0123)
    '+1.2'
    """
    return "–" if math.isnan(value) else f"{100 * value:+.1f}".replace("-", "−")


def percent(value: float, digits: int = 1) -> str:
    """A share in percent; a dash where unknown."""
    return "–" if math.isnan(value) else f"{100 * value:.{digits}f}"


def _next_known(ap: Floats) -> Floats:
    """For each round the AP that the next validation measured, a failed round left out."""
    following = np.full(ap.shape, np.nan)
    for row in range(len(ap) - 2, -1, -1):
        following[row] = np.where(np.isnan(ap[row + 1]), following[row + 1], ap[row + 1])
    return following


def _boosted(done: Round) -> npt.NDArray[np.bool_]:
    """Classes that were weak as a whole, not in a context alone."""
    return np.asarray(done.need > 0)


def _round_line(done: Round, gains: Floats, boosted: npt.NDArray[np.bool_]) -> RoundLine:
    draws = done.draws
    before = after = np.nan
    if draws is not None and draws.head_share_before is not None:
        before, after = draws.head_share_before, draws.head_share_after or np.nan
    return RoundLine(
        number=done.number,
        seconds=done.seconds,
        ap=_mean(done.ap.tolist()),
        weak=tuple(done.weak),
        queries=tuple(query.phrases[0] for query in done.queries),
        mistaken=_mistaken(done),
        counts=done.counts() if done.queries else dict.fromkeys(KINDS, 0),
        raised=0 if draws is None else draws.num_raised,
        moved=np.nan if draws is None else draws.moved_share,
        effective=np.nan if draws is None else draws.effective_size / max(draws.num_images, 1),
        head=after - before,
        gain_weak=_mean(gains[boosted].tolist()),
        gain_rest=_mean(gains[~boosted].tolist()),
        error=done.error,
    )


def _mistaken(done: Round) -> tuple[str, ...]:
    if done.inputs is None:
        return ()
    names = done.class_names
    pairs = sorted(done.inputs.confusion.mistaken_for, key=lambda pair: (-pair[2], pair))
    return tuple(
        f"{names[row]} for {names[other]} {percent(share, 0)} %" for row, other, share in pairs
    )


def _last_draws(rounds: Sequence[Round], row: int) -> float:
    for done in reversed(rounds):
        if done.draws is not None and done.draws.class_draws is not None:
            return float(done.draws.class_draws[row])
    return float("nan")


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _total(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.sum()) if len(known) else float("nan")

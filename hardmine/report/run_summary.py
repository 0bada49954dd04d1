"""Sum up a run's rounds: what was weak, what was searched for and drawn, and whether AP rose."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.history.rounds import Round
from hardmine.mining.targets import KINDS
from hardmine.mining.weights import WeightReport
from hardmine.report.units import percent

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RoundSummary:
    """One round of a run. AP and shares lie in [0, 1], gains are differences of AP.

    Attributes:
        number: Of the round.
        seconds: Duration of mining.
        ap: Mean AP over the known classes; NaN if none is known.
        weak: Classes in need, the weakest first.
        queries: The first phrase of each query.
        mistaken: Which classes were mistaken for which others more than most classes are, the
            largest share first, e.g. ``"bus for car 40 %"``.
        conditions: In which the detector was found to fail, and how often it does there.
        drawn_by: What draws followed, where that was neither classes nor queries.
        notes: What people should know of it, one line each.
        counts: Images of each kind.
        num_raised: Images drawn more often than uniformly.
        moved_share: Share of an epoch's draws that mining moved.
        effective_share: Effective sample size, as a share of the images.
        head_change: Change of the head classes' share of the draws; NaN without labels.
        gain_weak: Mean change of AP of the classes that this round boosted until the next
            validation; NaN in the last round.
        gain_rest: The same of the other classes.
        error: Why the round failed; empty if it did not.
    """

    number: int
    seconds: float
    ap: float
    weak: tuple[str, ...]
    queries: tuple[str, ...]
    mistaken: tuple[str, ...]
    conditions: tuple[str, ...]
    drawn_by: str
    notes: tuple[str, ...]
    counts: dict[str, int]
    num_raised: int
    moved_share: float
    effective_share: float
    head_change: float
    gain_weak: float
    gain_rest: float
    error: str


@dataclass(frozen=True)
class ClassSummary:
    """One class over all rounds.

    Attributes:
        name: The class.
        ap: (rounds,) NaN is unknown.
        need: (rounds,) after patience; NaN in a failed round.
        num_boosted: Rounds that boosted the class.
        gain_boosted: Sum of its AP changes after rounds that boosted it; NaN if there is none.
        gain_rest: The same after the other rounds.
        trust: Mean precision of its queries' hits; NaN if never measured.
        missed: How many times as often validation missed its objects in the last round as training
            shows them; NaN if unknown.
        draws: How often its objects were drawn in the last round, as a multiple of uniform
            sampling; NaN if unknown.
    """

    name: str
    ap: Floats
    need: Floats
    num_boosted: int
    gain_boosted: float
    gain_rest: float
    trust: float
    missed: float
    draws: float


@dataclass(frozen=True)
class RunSummary:
    """Rounds in order, and classes with the most boosted first."""

    rounds: tuple[RoundSummary, ...]
    classes: tuple[ClassSummary, ...]

    @property
    def gains(self) -> tuple[float, float]:
        """Mean AP change from one round to the next, of boosted classes and of the others."""
        return (
            _mean([one.gain_weak for one in self.rounds]),
            _mean([one.gain_rest for one in self.rounds]),
        )


def summarize_run(rounds: Sequence[Round]) -> RunSummary:
    """Sum up rounds of the same classes.

    Raises:
        InputError: If there are none, or their classes differ.
    """
    if not rounds:
        raise InputError("no rounds to show: no round is complete; has HardMiner.step run yet?")
    names = rounds[0].class_names
    for done in rounds:
        if done.class_names != names:
            raise InputError(
                f"round {done.number} has other classes than round {rounds[0].number}; "
                "give each run a rounds file of its own"
            )
    ap = np.stack([done.ap for done in rounds])
    need = np.stack([np.full(len(names), np.nan) if done.failed else done.need for done in rounds])
    boosted = np.stack([done.boosted for done in rounds])
    gains = _next_known(ap) - ap
    classes = [
        ClassSummary(
            name=name,
            ap=ap[:, row],
            need=need[:, row],
            num_boosted=int(boosted[:, row].sum()),
            gain_boosted=_total(gains[boosted[:, row], row]),
            gain_rest=_total(gains[~boosted[:, row], row]),
            trust=_mean(
                [
                    query.precision
                    for done in rounds
                    for query in done.queries
                    if query.class_name == name
                ]
            ),
            missed=_last_ratio(rounds, row),
            draws=_last_draws(rounds, row),
        )
        for row, name in enumerate(names)
    ]
    classes.sort(key=lambda one: (-one.num_boosted, -_highest(one.need), one.name))
    return RunSummary(
        tuple(_summarize(done, gains[row], boosted[row]) for row, done in enumerate(rounds)),
        tuple(classes),
    )


def _next_known(ap: Floats) -> Floats:
    """For each round the AP that the next validation measured; failed rounds are skipped."""
    following = np.full(ap.shape, np.nan)
    for row in range(len(ap) - 2, -1, -1):
        following[row] = np.where(np.isnan(ap[row + 1]), following[row + 1], ap[row + 1])
    return following


def _summarize(done: Round, gains: Floats, boosted: npt.NDArray[np.bool_]) -> RoundSummary:
    draws = done.draws
    return RoundSummary(
        number=done.number,
        seconds=done.seconds,
        ap=_mean(done.ap.tolist()),
        weak=tuple(done.weak),
        queries=tuple(query.phrases[0] for query in done.queries),
        mistaken=_mistaken(done),
        conditions=tuple(map(str, done.conditions)),
        drawn_by=done.drawn_by,
        notes=done.notes,
        counts=done.counts() if done.queries else dict.fromkeys(KINDS, 0),
        num_raised=0 if draws is None else draws.num_raised,
        moved_share=math.nan if draws is None else draws.moved_share,
        effective_share=math.nan if draws is None else draws.effective_size / draws.num_images,
        head_change=_head_change(draws),
        gain_weak=_mean(gains[boosted].tolist()),
        gain_rest=_mean(gains[~boosted].tolist()),
        error=done.error,
    )


def _head_change(draws: WeightReport | None) -> float:
    if draws is None or draws.head_share_before is None or draws.head_share_after is None:
        return math.nan
    return draws.head_share_after - draws.head_share_before


def _mistaken(done: Round) -> tuple[str, ...]:
    if done.inputs is None:
        return ()
    names = done.class_names
    pairs = sorted(done.inputs.mistaken_for, key=lambda pair: (-pair[2], pair))
    return tuple(
        f"{names[row]} for {names[other]} {percent(share, 0)} %" for row, other, share in pairs
    )


def _last_ratio(rounds: Sequence[Round], row: int) -> float:
    for done in reversed(rounds):
        if done.inputs is not None and done.inputs.ratios.classes is not None:
            return done.inputs.ratios.classes[row]
    return math.nan


def _last_draws(rounds: Sequence[Round], row: int) -> float:
    for done in reversed(rounds):
        if done.draws is not None and done.draws.class_draws is not None:
            return float(done.draws.class_draws[row])
    return math.nan


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _highest(values: Floats) -> float:
    return float(np.nan_to_num(values, nan=0.0).max(initial=0.0))


def _total(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.sum()) if len(known) else math.nan

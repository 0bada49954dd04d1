"""From validation metrics to need: how weak each class is, in [0, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.metrics import read_scores
from hardmine.metrics.names import NameMatch, match_names
from hardmine.mining.policies import Policy, parse_policy
from hardmine.records import ClassScores

__all__ = ["Need", "class_need", "read_scores"]


@dataclass(frozen=True)
class Need:
    """How weak each class is, and what that rests on. As an array it is ``need``.

    Attributes:
        class_names: C names.
        need: (C,) in [0, 1]; 1 = weakest, 0 = strong enough or unknown.
        ap: (C,) as measured, in [0, 1]; NaN is unknown.
        level: (C,) what the policy judged: ``ap`` shrunk by its instances and averaged over
            rounds; NaN if never known.
        known: (C,) bool, whether this validation measured the class.
        by_size: (C, 3) need by the AP of small, medium and large objects; None if not measured.
        ap_by_size: (C, 3) as measured, NaN unknown; None if not given.
        num_instances: (C,) validation instances, 0 if unknown; None if not given.
        names: How the names of the metrics were matched to the classes.
        policy: Which policy judged.
        source: Where the metrics come from.
    """

    class_names: tuple[str, ...]
    need: npt.NDArray[np.float64]
    ap: npt.NDArray[np.float64]
    level: npt.NDArray[np.float64]
    known: npt.NDArray[np.bool_]
    by_size: npt.NDArray[np.float64] | None = None
    ap_by_size: npt.NDArray[np.float64] | None = None
    num_instances: npt.NDArray[np.int64] | None = None
    names: NameMatch = field(default_factory=lambda: NameMatch(np.zeros(0, np.int64)))
    policy: str = ""
    source: str = ""

    def __len__(self) -> int:
        return len(self.class_names)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return np.array(self.need, dtype=dtype)

    @property
    def unmatched(self) -> list[str]:
        """What did not match between metrics and classes, one line each; empty if all did."""
        return self.names.lines()

    def weakest(self, count: int | None = None) -> list[str]:
        """Names of the classes in need, the weakest first."""
        order = np.argsort(-self.need, kind="stable")
        return [self.class_names[row] for row in order[:count].tolist() if self.need[row] > 0]


def class_need(
    metrics: Any,
    class_names: Sequence[str] | None = None,
    *,
    policy: str | Policy = "mean",
    previous: Need | None = None,
    momentum: float = 0.5,
    prior: float = 10.0,
    num_instances: npt.ArrayLike | None = None,
    prefix: str | None = None,
    percent: bool = False,
) -> Need:
    """Judge from validation metrics how weak each class is.

    1. shrink:  s = (n · AP + prior · mean) / (n + prior), where the number of instances n is known
    2. average: level = momentum · previous level + (1 - momentum) · s
    3. judge:   need = policy(level, level - previous level)

    A class that this validation did not measure keeps its previous level, if it has one; a class
    never measured has need 0.

    Args:
        metrics: Any form that ``read_scores`` reads.
        class_names: The C classes to judge, e.g. the index's; those of the metrics if None.
        policy: "mean" (below the mean), "below:0.5" (a target), "bottom:10", "bottom:20%",
            "stalled:0.01", or a function of (AP, gain).
        previous: The need of the round before.
        momentum: Weight of the previous level, in [0, 1); 0 looks at this round alone.
        prior: How many instances at the mean AP each class is taken to have besides its own: an
            AP over that few is believed half. 0 turns shrinkage off.
        num_instances: (C,) validation instances by class, where the metrics do not say.
        prefix: See ``read_scores``.
        percent: See ``read_scores``.

    Raises:
        InputError: If the metrics cannot be read or name none of the classes.

    >>> class_need({"person": 0.6, "fork": 0.15, "cow": -1}).need.round(3)
    array([0. , 0.6, 0. ])
    """
    if not 0 <= momentum < 1:
        raise InputError(f"momentum must be in [0, 1), got {momentum}")
    if prior < 0:
        raise InputError(f"prior is a number of instances, at least 0, got {prior}")
    judge = parse_policy(policy) if isinstance(policy, str) else policy
    scores = read_scores(metrics, class_names, prefix=prefix, percent=percent)
    wanted = scores.class_names if class_names is None else tuple(class_names)
    names = match_names(wanted, scores.class_names)
    if wanted and (names.rows < 0).all():
        raise InputError(
            f"the metrics name none of the {len(wanted)} classes: they name "
            f"{', '.join(scores.class_names[:3])} ..., the classes are {', '.join(wanted[:3])} ..."
        )
    scores = _reorder(scores, wanted, names.rows)
    counts = scores.num_instances
    if counts is None and num_instances is not None:
        counts = np.asarray(num_instances, np.int64)
        if counts.shape != (len(wanted),):
            raise InputError(
                f"num_instances must have one value a class ({len(wanted)}), got {counts.shape}"
            )
    shrunk = scores.ap if counts is None else shrink(scores.ap, counts, prior=prior)
    before = _previous_level(previous, wanted)
    level = np.where(
        np.isnan(shrunk) | np.isnan(before),
        np.where(np.isnan(shrunk), before, shrunk),
        momentum * before + (1 - momentum) * shrunk,
    )
    gain = level - before
    by_size = None
    if scores.ap_by_size is not None:
        columns = scores.ap_by_size.T
        by_size = np.stack([_checked(judge(column, gain), wanted) for column in columns], axis=1)
    return Need(
        class_names=wanted,
        need=_checked(judge(level, gain), wanted),
        ap=scores.ap,
        level=level,
        known=~np.isnan(scores.ap),
        by_size=by_size,
        ap_by_size=scores.ap_by_size,
        num_instances=counts,
        names=names,
        policy=policy if isinstance(policy, str) else getattr(policy, "__name__", "own policy"),
        source=scores.source,
    )


def shrink(
    ap: npt.NDArray[np.float64], num_instances: npt.NDArray[np.int64], *, prior: float = 10.0
) -> npt.NDArray[np.float64]:
    """Pull APs over few instances towards the mean; NaN stays.

    The mean itself counts each class by n / (n + prior), so noisy classes hardly move it.

    >>> shrink(np.array([0.0, 0.5]), np.array([10, 990])).round(2)
    array([0.17, 0.5 ])
    """
    belief = np.where(np.isnan(ap), 0.0, num_instances / np.maximum(num_instances + prior, 1e-12))
    if belief.sum() == 0:
        return ap
    mean = (np.nan_to_num(ap) * belief).sum() / belief.sum()
    return np.asarray(belief * ap + (1 - belief) * mean)


def _checked(
    need: npt.NDArray[np.float64], class_names: tuple[str, ...]
) -> npt.NDArray[np.float64]:
    if np.shape(need) != (len(class_names),) or not ((need >= 0) & (need <= 1)).all():
        raise InputError(
            f"a policy must give one need a class ({len(class_names)}) in [0, 1], 0 for unknown; "
            f"got {need}"
        )
    return np.asarray(need, np.float64)


def _reorder(
    scores: ClassScores, class_names: tuple[str, ...], rows: npt.NDArray[np.int64]
) -> ClassScores:
    missing = rows < 0

    def taken(values: npt.NDArray[Any], nothing: float) -> npt.NDArray[Any]:
        chosen: npt.NDArray[Any] = values[rows]
        chosen[missing] = nothing
        return chosen

    by_size, counts = scores.ap_by_size, scores.num_instances
    return ClassScores(
        class_names,
        taken(scores.ap, np.nan),
        None if by_size is None else taken(by_size, np.nan),
        None if counts is None else taken(counts, 0),
        scores.source,
    )


def _previous_level(previous: Need | None, class_names: tuple[str, ...]) -> npt.NDArray[np.float64]:
    before = np.full(len(class_names), np.nan)
    if previous is not None:
        place = {name: row for row, name in enumerate(previous.class_names)}
        for row, name in enumerate(class_names):
            if name in place:
                before[row] = previous.level[place[name]]
    return before

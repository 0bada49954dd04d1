"""From validation metrics to need: how weak each class is, in [0, 1]."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.metrics import read_scores
from hardmine.metrics.names import NameMatch, match_names
from hardmine.records import ClassScores, ImageSet

Floats = npt.NDArray[np.float64]
# (C,) AP now and (C,) gain since the last round, both NaN where unknown -> (C,) need in [0, 1].
Policy = Callable[[Floats, Floats], Floats]


@dataclass(frozen=True)
class NeedRules:
    """Which classes count as weak, and for how long.

    Attributes:
        policy: "mean" (below the mean AP), "below:0.5" (below a target), "bottom:10" (classes),
            "bottom:20%", "stalled:0.01" (less gain than that), or a function (AP, gain) -> need.
        momentum: Weight of the previous rounds in the running average of AP, in [0, 1); 0 looks at
            this validation alone.
        prior: Number of instances at the mean AP that are added to each class's own: an AP over
            that many instances counts half. 0 turns this shrinkage off.
        patience: Boosted rounds before the need of a class may be reduced whose AP surely does not
            rise; None for never.
        class_names: The classes to judge; None for all that the labels know.
        num_instances: Validation instances of each class, where the metrics do not say.
        prefix: Data set to read where the metrics hold several; see ``read_scores``.
        percent: Whether AP runs to 100.
        first_label: For torchmetrics, the label of the first class; see ``read_scores``.
    """

    policy: str | Policy = "mean"
    momentum: float = 0.5
    prior: float = 10.0
    patience: int | None = 3
    class_names: tuple[str, ...] | None = None
    num_instances: tuple[int, ...] | None = None
    prefix: str | None = None
    percent: bool = False
    first_label: int | None = None

    def __post_init__(self) -> None:
        if isinstance(self.policy, str):
            parse_policy(self.policy)
        elif not callable(self.policy):
            raise InputError(f"policy must be a name or a function, got {self.policy!r}")
        _require_number("momentum", self.momentum, "in [0, 1)", lambda value: 0 <= value < 1)
        _require_number("prior", self.prior, "a number of instances, at least 0", _not_negative)
        if self.patience is not None and (
            isinstance(self.patience, bool)
            or not isinstance(self.patience, int | np.integer)
            or self.patience < 1
        ):
            raise InputError(
                f"patience must be a number of rounds, at least 1, or None, got {self.patience!r}"
            )
        if self.class_names is not None:
            object.__setattr__(self, "class_names", as_texts("class_names", self.class_names))
        if self.num_instances is not None:
            counts = np.asarray(self.num_instances, np.int64).tolist()
            object.__setattr__(self, "num_instances", tuple(counts))

    @property
    def policy_name(self) -> str:
        """The policy's name, for the record."""
        if isinstance(self.policy, str):
            return self.policy
        return getattr(self.policy, "__name__", type(self.policy).__name__)

    def classes_of(self, images: ImageSet | None) -> tuple[str, ...]:
        """The classes to judge, given the labels."""
        names = self.class_names or (images.class_names if images is not None else ())
        if not names:
            raise InputError(
                "HardMiner must know the classes: give images with labels, or "
                "need=NeedRules(class_names=[...])"
            )
        return names

    @property
    def policy_function(self) -> Policy:
        """The policy as a function."""
        return parse_policy(self.policy) if isinstance(self.policy, str) else self.policy


def as_texts(name: str, values: Sequence[str]) -> tuple[str, ...]:
    """Check that values are a list of texts; a lone text is refused, since it is one too.

    >>> as_texts("contexts", ["at night"])
    ('at night',)
    """
    if isinstance(values, str) or not all(isinstance(value, str) for value in values):
        raise InputError(f"{name} must be a list of texts, such as ['...'], got {values!r}")
    return tuple(values)


def _not_negative(value: float) -> bool:
    return 0 <= value < float("inf")


def _require_number(name: str, value: Any, expected: str, fits: Callable[[float], bool]) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not fits(float(value)):
        raise InputError(f"{name} must be {expected}, got {value!r}")


@dataclass(frozen=True)
class Need:
    """How weak each class is, and what that rests on. As an array it is ``need``.

    Attributes:
        class_names: C names.
        need: (C,) in [0, 1]; 1 = weakest, 0 = strong enough or unknown.
        ap: (C,) as measured, in [0, 1]; NaN is unknown.
        level: (C,) AP that the policy saw: ``ap`` shrunk by its instances and averaged over
            rounds; NaN if never known.
        by_size: (C, 3) need by the AP of small, medium and large objects; None if not measured.
        ap_by_size: (C, 3) as measured, NaN unknown; None if not given.
        num_instances: (C,) validation instances, 0 if unknown; None if not given.
        names: How the names of the metrics were matched to the classes.
        policy: Name of the policy.
        source: Where the metrics come from.
    """

    class_names: tuple[str, ...]
    need: Floats
    ap: Floats
    level: Floats
    by_size: Floats | None = None
    ap_by_size: Floats | None = None
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
        """Names that did not match between metrics and classes, one line each."""
        return self.names.lines()


def class_need(
    metrics: Any,
    class_names: Sequence[str] | None = None,
    *,
    rules: NeedRules | None = None,
    previous: Need | None = None,
) -> Need:
    """Compute from validation metrics how weak each class is.

    1. shrink:  s = (n · AP + prior · mean) / (n + prior), where the number of instances n is known
    2. average: level = momentum · previous level + (1 - momentum) · s
    3. need:    policy(level, level - previous level)

    A class that this validation did not measure keeps its previous level, if it has one, and what
    it gained is unknown. A class that was never measured has need 0.

    Args:
        metrics: Any form that ``read_scores`` reads.
        class_names: The C classes, in the order of the result; those of ``rules`` if None, else
            those of the metrics.
        rules: Policy, average and shrinkage.
        previous: The need of the round before.

    Raises:
        InputError: If the metrics cannot be read or name none of the classes.

    >>> class_need({"person": 0.6, "fork": 0.15, "cow": -1}).need.round(3)
    array([0. , 0.6, 0. ])
    """
    rules = rules or NeedRules()
    class_names = class_names if class_names is not None else rules.class_names
    names, scores = _scores_of_classes(metrics, class_names, rules)
    counts = scores.num_instances
    shrunk = scores.ap if counts is None else shrink(scores.ap, counts, prior=rules.prior)
    before = _previous_level(previous, scores.class_names)
    level = np.where(
        np.isnan(shrunk) | np.isnan(before),
        np.where(np.isnan(shrunk), before, shrunk),
        rules.momentum * before + (1 - rules.momentum) * shrunk,
    )
    gain = np.where(np.isnan(shrunk), np.nan, level - before)
    by_size = None
    if scores.ap_by_size is not None:
        by_size = np.stack(
            [
                _checked(rules.policy_function(ap, gain), scores.class_names)
                for ap in scores.ap_by_size.T
            ],
            axis=1,
        )
    return Need(
        class_names=scores.class_names,
        need=_checked(rules.policy_function(level, gain), scores.class_names),
        ap=scores.ap,
        level=level,
        by_size=by_size,
        ap_by_size=scores.ap_by_size,
        num_instances=counts,
        names=names,
        policy=rules.policy_name,
        source=scores.source,
    )


def _scores_of_classes(
    metrics: Any, class_names: Sequence[str] | None, rules: NeedRules
) -> tuple[NameMatch, ClassScores]:
    """Read the metrics and put their classes in the order asked for."""
    scores = read_scores(
        metrics,
        class_names,
        prefix=rules.prefix,
        percent=rules.percent,
        first_label=rules.first_label,
    )
    names = scores.class_names if class_names is None else tuple(class_names)
    match = match_names(names, scores.class_names)
    if names and (match.rows < 0).all():
        raise InputError(
            f"the metrics name none of the {len(names)} classes: they name "
            f"{', '.join(scores.class_names[:3])} ..., the classes are {', '.join(names[:3])} ..."
        )
    scores = _reorder(scores, names, match.rows)
    if scores.num_instances is None and rules.num_instances is not None:
        if len(rules.num_instances) != len(names):
            raise InputError(
                f"num_instances must have one value a class (expected {len(names)}, "
                f"got {len(rules.num_instances)})"
            )
        scores = replace(scores, num_instances=np.array(rules.num_instances, np.int64))
    return match, scores


def shrink(ap: Floats, num_instances: npt.NDArray[np.int64], *, prior: float = 10.0) -> Floats:
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


def _checked(need: Floats, class_names: tuple[str, ...]) -> Floats:
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

    def select(values: npt.NDArray[Any], nothing: float) -> npt.NDArray[Any]:
        chosen: npt.NDArray[Any] = values[rows]
        chosen[missing] = nothing
        return chosen

    by_size, counts = scores.ap_by_size, scores.num_instances
    return ClassScores(
        class_names,
        select(scores.ap, np.nan),
        None if by_size is None else select(by_size, np.nan),
        None if counts is None else select(counts, 0),
        scores.source,
    )


def _previous_level(previous: Need | None, class_names: tuple[str, ...]) -> Floats:
    before = np.full(len(class_names), np.nan)
    if previous is not None:
        place = {name: row for row, name in enumerate(previous.class_names)}
        for row, name in enumerate(class_names):
            if name in place:
                before[row] = previous.level[place[name]]
    return before


def below_target(ap: Floats, gain: Floats, *, target: float = 0.5) -> Floats:
    """Need grows from 0 at the target to 1 at an AP of 0."""
    return _known(1.0 - ap / target)


def below_mean(ap: Floats, gain: Floats) -> Floats:
    """Need grows from 0 at the mean AP of all known classes to 1 at an AP of 0."""
    known = ap[~np.isnan(ap)]
    if known.size == 0 or known.mean() == 0:
        return np.zeros_like(ap)
    return _known(1.0 - ap / known.mean())


def bottom(ap: Floats, gain: Floats, *, count: int) -> Floats:
    """Need is 1 for the ``count`` weakest known classes, with all that tie with the last."""
    known = np.sort(ap[~np.isnan(ap)])
    if count < 1 or known.size == 0:
        return np.zeros_like(ap)
    weak: Floats = (ap <= known[min(count, known.size) - 1]).astype(np.float64)
    return weak


def bottom_share(ap: Floats, gain: Floats, *, share: float) -> Floats:
    """``bottom`` of a share of the known classes, at least one."""
    known = int((~np.isnan(ap)).sum())
    return bottom(ap, gain, count=max(1, round(share * known)))


def stalled(ap: Floats, gain: Floats, *, expected: float = 0.01) -> Floats:
    """Need is the room left, 1 - AP, where a round gained nothing; 0 where it gained enough.

    A class whose gain is not known yet is not stalled.
    """
    return _known((1.0 - ap) * (1.0 - gain / expected).clip(0, 1))


_FORMS = (
    '"mean", "below:0.5" (a target AP), "bottom:10" (classes), "bottom:20%" or "stalled:0.01" '
    "(gain in AP that a round should bring)"
)


def parse_policy(text: str) -> Policy:
    """Turn the name of a policy into its function.

    >>> parse_policy("bottom:1")(np.array([0.2, 0.1, np.nan]), np.zeros(3))
    array([0., 1., 0.])
    """
    number = r"(?P<value>\d+\.?\d*|\.\d+)(?P<percent>%?)"
    match = re.fullmatch(rf"(?P<name>[a-z]+)(?::{number})?", text.strip())
    if match is None:
        raise InputError(f"policy must be {_FORMS}; got {text!r}")
    name, value = match["name"], None if match["value"] is None else float(match["value"])
    if value is not None and match["percent"]:
        value /= 100
    policy: Policy | None = None
    if name == "mean" and value is None:
        policy = below_mean
    elif name == "below" and value is not None and 0 < value <= 1:
        policy = partial(below_target, target=value)
    elif name == "bottom" and match["percent"] and value is not None and 0 < value <= 1:
        policy = partial(bottom_share, share=value)
    elif name == "bottom" and value is not None and value >= 1 and value == int(value):
        policy = partial(bottom, count=int(value))
    elif name == "stalled" and (value is None or 0 < value <= 1):
        policy = partial(stalled, expected=0.01 if value is None else value)
    if policy is None:
        raise InputError(f"policy must be {_FORMS}; got {text!r}")
    return policy


def _known(need: Floats) -> Floats:
    return np.nan_to_num(need, nan=0.0).clip(0.0, 1.0)

"""When is a class weak: functions from APs to need, and the text that names them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError

Shares = npt.NDArray[np.float64]
# (C,) AP now and (C,) gain since the last round, both NaN where unknown -> (C,) need in [0, 1].
Policy = Callable[[Shares, Shares], Shares]


def below_target(ap: Shares, gain: Shares, *, target: float = 0.5) -> Shares:
    """Need grows from 0 at the target to 1 at an AP of 0."""
    return _known(1.0 - ap / target)


def below_mean(ap: Shares, gain: Shares) -> Shares:
    """Need grows from 0 at the mean AP of all known classes to 1 at an AP of 0."""
    known = ap[~np.isnan(ap)]
    if known.size == 0 or known.mean() == 0:
        return np.zeros_like(ap)
    return _known(1.0 - ap / known.mean())


def bottom(ap: Shares, gain: Shares, *, count: int) -> Shares:
    """Need is 1 for the ``count`` weakest known classes, with all that tie with the last."""
    known = np.sort(ap[~np.isnan(ap)])
    if count < 1 or known.size == 0:
        return np.zeros_like(ap)
    weak: Shares = (ap <= known[min(count, known.size) - 1]).astype(np.float64)
    return weak


def bottom_share(ap: Shares, gain: Shares, *, share: float) -> Shares:
    """``bottom`` of a share of the known classes, at least one."""
    known = int((~np.isnan(ap)).sum())
    return bottom(ap, gain, count=max(1, round(share * known)))


def stalled(ap: Shares, gain: Shares, *, expected: float = 0.01) -> Shares:
    """Need is the room left, 1 - AP, where a round gained nothing; 0 where it gained enough.

    A class whose gain is not known yet is not called stalled.
    """
    return _known((1.0 - ap) * (1.0 - gain / expected).clip(0, 1))


_FORMS = (
    '"mean", "below:0.5" (a target AP), "bottom:10" (classes), "bottom:20%" or "stalled:0.01" '
    "(gain in AP that a round should bring)"
)


def parse_policy(text: str) -> Policy:
    """Turn the name of a policy into the function.

    >>> parse_policy("bottom:1")(np.array([0.2, 0.1, np.nan]), np.zeros(3))
    array([0., 1., 0.])
    """
    match = re.fullmatch(r"(?P<name>[a-z]+)(?::(?P<value>[0-9.]+)(?P<percent>%?))?", text.strip())
    if match is None or match["value"] in ("", "."):
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


def _known(need: Shares) -> Shares:
    return np.nan_to_num(need, nan=0.0).clip(0.0, 1.0)

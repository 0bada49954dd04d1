"""Diminishing returns: an image that has been drawn more often than others counts for less."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import root_scalar
from scipy.special import expit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """How often each image has been drawn, compared with the mean image.

    Attributes:
        passes: Draws of the mean image.
        extra_draws: (N,) draws beyond those, negative for fewer; None where all images had as many.
    """

    passes: float = 0.0
    extra_draws: Floats | None = None

    def after(self, passes: float, weights: Floats | None) -> Exposure:
        """The exposure once the mean image has been drawn ``passes`` times.

        Args:
            passes: Draws of the mean image by then.
            weights: (N,) the weights in use since ``self``; None for uniform draws.

        >>> Exposure(1.0).after(3.0, np.array([1.0, 3.0])).extra_draws
        array([-1.,  1.])
        """
        if weights is None or passes <= self.passes:
            return replace(self, passes=passes)
        gained = (passes - self.passes) * (weights / weights.mean() - 1)
        extra = gained if self.extra_draws is None else self.extra_draws + gained
        return Exposure(passes, extra)


def discount_weights(
    weights: Floats,
    before: Exposure,
    *,
    drawn_by: Floats | None,
    passes: float,
    epoch_passes: float,
    scale: float | None,
) -> tuple[Floats, Exposure]:
    """Reduce the weights of images that have been drawn more often than others.

    Args:
        weights: (N,) weights as demanded.
        before: The exposure when the last weights were set.
        drawn_by: (N,) those last weights; None if all images were drawn alike.
        passes: Draws of the mean image by now.
        epoch_passes: Passes of one epoch, the least that the new weights will be used for.
        scale: See ``diminish``; None leaves the weights as they are.

    Returns:
        The weights to draw by, and the exposure by now.
    """
    if scale is None:
        return weights, Exposure(passes)
    exposure = before.after(passes, drawn_by)
    # The new weights will be in use for as long as the last ones were.
    ahead = epoch_passes if drawn_by is None else max(passes - before.passes, epoch_passes)
    return diminish(weights, exposure.extra_draws, passes=ahead, scale=scale), exposure


def diminish(weights: Floats, extra_draws: Floats | None, *, passes: float, scale: float) -> Floats:
    """Let the worth of an image fall with every draw.

    After ``scale`` draws more than the mean image, one more draw is worth 37 % (1/e) of what it
    was. At that, an image of weight w gets ``scale · log(1 + c · w · exp(-extra / scale))`` draws
    in the passes to come; c is chosen so that the mean image gets as many draws as there are
    passes.

    Args:
        weights: (N,) not negative, not all zero.
        extra_draws: (N,) draws that each image has had beyond the mean one; 0 if None.
        passes: Passes that the result is used for, above 0.
        scale: Above 0. The larger, the less changes.

    Returns:
        (N,) with the mean of ``weights``.

    >>> diminish(np.array([1.0, 1.0, 10.0]), None, passes=1.0, scale=100.0).round(2)
    array([1.01, 1.01, 9.98])
    >>> diminish(np.array([1.0, 1.0, 10.0]), None, passes=1.0, scale=2.0).round(2)
    array([1.51, 1.51, 8.98])
    """
    with np.errstate(divide="ignore"):  # an image of weight 0 stays at 0
        logs = np.log(weights)
    if extra_draws is not None:
        logs = logs - extra_draws / scale
    logs = logs - np.logaddexp.reduce(logs) + np.log(len(logs))

    def excess(log_c: float) -> tuple[float, float]:
        draws, slope = np.logaddexp(0, logs + log_c), expit(logs + log_c)
        return float(draws.mean() - passes / scale), float(slope.mean())

    # log(1 + x) is at most x, so the root is at this value or to its left. On a convex function
    # Newton's steps from the right converge without overshooting.
    found = root_scalar(excess, x0=np.log(passes / scale), fprime=True, method="newton", rtol=1e-12)
    draws = np.logaddexp(0, logs + found.root)
    return np.asarray(draws * (weights.mean() / draws.mean()))

"""How far some images are ahead of the others in draws, and what that takes from their weights."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import root_scalar
from scipy.special import expit

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Exposure:
    """How much more often each image has been drawn than the mean one, as the weights had it.

    Attributes:
        passes: Draws of the mean image.
        draws: (N,) draws beyond those; None where all images had as many.
    """

    passes: float = 0.0
    draws: Floats | None = None

    def after(self, passes: float, weights: Floats | None) -> Exposure:
        """Once the mean image has been drawn ``passes`` times, since then by these weights.

        >>> Exposure(1.0).after(3.0, np.array([1.0, 3.0])).draws
        array([-1.,  1.])
        """
        if weights is None or passes <= self.passes:
            return replace(self, passes=passes)
        gained = (passes - self.passes) * (weights / weights.mean() - 1)
        return Exposure(passes, gained if self.draws is None else self.draws + gained)

    def fade(
        self,
        wanted: Floats,
        *,
        drawn_by: Floats | None,
        passes: float,
        epoch: float,
        fade: float | None,
    ) -> tuple[Exposure, Floats]:
        """How far each image is ahead by now, and the weights that are left at that.

        Args:
            wanted: (N,) weights.
            drawn_by: (N,) those of the draws since ``self``; None if all images were drawn alike.
            passes: Draws of the mean image by now.
            epoch: Passes of an epoch, the least that the weights will be in use for.
            fade: See ``fade_weights``; None leaves the weights as they are.
        """
        if fade is None:
            return Exposure(passes), wanted
        lead = self.after(passes, drawn_by)
        # As long as the last weights were in use, these will be.
        ahead = epoch if drawn_by is None else max(passes - self.passes, epoch)
        return lead, fade_weights(wanted, lead.draws, ahead=ahead, fade=fade)


def fade_weights(weights: Floats, lead: Floats | None, *, ahead: float, fade: float) -> Floats:
    """Weights by which an image is wanted less the more often it is drawn.

    A draw is worth 1/e of what it was once the image is ``fade`` draws further ahead of the mean
    one, and so on with every draw to come: at that, an image of weight w gets
    ``fade · log(1 + c · w · exp(-lead / fade))`` draws in the passes to come, where c is what
    makes the mean image get as many as there are passes.

    Args:
        weights: (N,) not negative, not all zero.
        lead: (N,) draws that each image is ahead already; 0 if None.
        ahead: Passes that these weights are for, above 0.
        fade: Above 0. The larger it is, the less changes.

    Returns:
        (N,) with the mean of ``weights``.

    >>> fade_weights(np.array([1.0, 1.0, 10.0]), None, ahead=1.0, fade=100.0).round(2)
    array([1.01, 1.01, 9.98])
    >>> fade_weights(np.array([1.0, 1.0, 10.0]), None, ahead=1.0, fade=2.0).round(2)
    array([1.51, 1.51, 8.98])
    """
    with np.errstate(divide="ignore"):  # never drawn, still never drawn
        wanted = np.log(weights)
    if lead is not None:
        wanted = wanted - lead / fade
    wanted = wanted - np.logaddexp.reduce(wanted) + np.log(len(wanted))

    def missing(log_c: float) -> tuple[float, float]:
        draws, slope = np.logaddexp(0, wanted + log_c), expit(wanted + log_c)
        return float(draws.mean() - ahead / fade), float(slope.mean())

    # log(1 + x) is at most x, so this is where the root is or to the left of it: Newton's steps
    # on a convex function come back from the right and stay there.
    found = root_scalar(missing, x0=np.log(ahead / fade), fprime=True, method="newton", rtol=1e-12)
    draws = np.logaddexp(0, wanted + found.root)
    return np.asarray(draws * (weights.mean() / draws.mean()))

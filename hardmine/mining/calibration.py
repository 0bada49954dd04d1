"""What a similarity means for one class: cosines of different classes are not comparable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BINS = 512
_FEWEST = 5  # labelled images from which a missing label can be suspected


@dataclass(frozen=True)
class Calibration:
    """Scores of one class against its labels.

    Attributes:
        present: (P,) float64 ascending scores of the images labelled with the class.
        slope: Of the log odds of being labelled, at least 0: a query that ranks the wrong way
            round says nothing.
        intercept: Of the same, at score 0.
        label_rate: Share of the images showing the class that are labelled with it.
    """

    present: Floats
    slope: float
    intercept: float
    label_rate: float

    @property
    def can_detect_missing(self) -> bool:
        """Whether there are enough labelled images to suspect of others that they lack a label."""
        return len(self.present) >= _FEWEST

    def closeness(self, scores: npt.ArrayLike) -> Floats:
        """Share of the labelled images that an image looks more like the class than, [0, 1]."""
        place = np.searchsorted(self.present, scores, side="left")
        return np.asarray(place / max(len(self.present), 1))

    def presence(self, scores: npt.ArrayLike) -> Floats:
        """Probability of being labelled with the class, at the share of images that are."""
        return _sigmoid(self.slope * np.asarray(scores, np.float64) + self.intercept)

    def missing(self, scores: npt.ArrayLike) -> Floats:
        """Probability that an image not labelled with the class shows it all the same.

        With labels missing at random, an unlabelled image at a score where a share g of the
        images is labelled shows the class with probability (1 - c) / c · g / (1 - g), c being the
        share of true images that were labelled (Elkan and Noto, 2008).
        """
        labelled = self.presence(scores)
        odds = labelled / np.maximum(1 - labelled, 1e-12)
        return np.minimum((1 - self.label_rate) / self.label_rate * odds, 1.0)


def calibrate(
    present: npt.ArrayLike, absent: npt.ArrayLike, *, missing: float | None = None
) -> Calibration:
    """Fit a class's scores to its labels: logistic, with Platt's targets for few images.

    Args:
        present: (P,) scores of the images labelled with the class.
        absent: (A,) scores of the images labelled without it.
        missing: Share of the true images whose label is missing; None reads it off the labels
            among the best scores.
    """
    right = np.sort(np.asarray(present, np.float64))
    wrong = np.asarray(absent, np.float64)
    slope, intercept = _fit(right, wrong)
    rate = 1 - missing if missing is not None else _label_rate(right, wrong)
    return Calibration(right, slope, intercept, float(np.clip(rate, 0.01, 1.0)))


def _fit(right: Floats, wrong: Floats) -> tuple[float, float]:
    """Slope and intercept of P(labelled | score) by Newton's method on binned scores."""
    plain = 0.0, float(np.log((len(right) + 1) / (len(wrong) + 1)))
    if len(right) == 0 or len(wrong) == 0:
        return plain
    everything = np.concatenate([right, wrong])
    low, spread = float(everything.min()), float(np.ptp(everything))
    if spread == 0:
        return plain
    # Bins make the cost of a step independent of the number of images.
    ours, theirs = (
        np.bincount(((part - low) * ((_BINS - 1) / spread) + 0.5).astype(np.int64), minlength=_BINS)
        for part in (right, wrong)
    )
    x = np.linspace(0.0, 1.0, _BINS)
    yes = (len(right) + 1) / (len(right) + 2)
    no = 1 / (len(wrong) + 2)
    count = (ours + theirs).astype(np.float64)
    wanted = ours * yes + theirs * no
    slope, intercept = 0.0, float(np.log(wanted.sum() / (count - wanted).sum()))
    loss = _loss(slope, intercept, x, count, wanted)
    for _ in range(50):
        chance = _sigmoid(slope * x + intercept)
        error, curve = chance * count - wanted, count * chance * (1 - chance) + 1e-9
        gradient = np.array([error @ x, error.sum()])
        hessian = np.array([[curve @ (x * x), curve @ x], [curve @ x, curve.sum()]])
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        scale = 1.0
        while scale > 1e-6:
            there = slope - scale * step[0], intercept - scale * step[1]
            lower = _loss(*there, x, count, wanted)
            if lower <= loss:
                break
            scale /= 2
        (slope, intercept), fall, loss = there, loss - lower, lower
        if fall < 1e-9 * max(loss, 1.0):
            break
    if slope <= 0:
        return plain
    return slope / spread, intercept - slope * low / spread


def _loss(slope: float, intercept: float, x: Floats, count: Floats, wanted: Floats) -> float:
    logit = slope * x + intercept
    return float(count @ np.logaddexp(0.0, logit) - wanted @ logit)


def _label_rate(right: Floats, wrong: Floats) -> float:
    """Share of labelled images among the best scores, drawn towards 95 % where there are few.

    Bounded below: where a third of the best hits is not labelled, the query is wrong more likely
    than the labels.
    """
    both = np.concatenate([right, wrong])
    if len(both) == 0:
        return 0.95
    wanted = min(max(len(right) // 4, 20), len(both))
    edge = np.partition(both, len(both) - wanted)[len(both) - wanted]
    hits = (right >= edge).sum()
    seen = hits + (wrong >= edge).sum()
    return float(np.clip((hits + 0.95 * 20) / (seen + 20), 0.8, 0.99))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))

"""From similarity to probability, class by class: cosines of classes are not comparable."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_BINS = 512
_MIN_LABELLED = 5  # images needed before a missing label can be suspected


@dataclass(frozen=True)
class Calibration:
    """Scores of one class against its labels.

    Attributes:
        present: (P,) ascending scores of the images labelled with the class, or checked and found
            to show it.
        slope: Of the log odds of being labelled against the score, at least 0. A query that ranks
            in the wrong order carries no information.
        intercept: Of the log odds at score 0.
        label_rate: Share of the images showing the class that are labelled with it.
    """

    present: npt.NDArray[np.floating[Any]]
    slope: float
    intercept: float
    label_rate: float

    @property
    def can_detect_missing(self) -> bool:
        """Whether there are enough labelled images to suspect missing labels elsewhere."""
        return len(self.present) >= _MIN_LABELLED

    def closeness(self, scores: npt.ArrayLike) -> Floats:
        """Share of the labelled images that score lower, in [0, 1]."""
        place = np.searchsorted(self.present, scores, side="left")
        return np.asarray(place / max(len(self.present), 1))

    def presence(self, scores: npt.ArrayLike) -> Floats:
        """Probability of being labelled with the class; 0 at -inf, for images not in the index."""
        known = np.asarray(scores, np.float64)
        indexed = np.isfinite(known)
        # A slope of 0 times -inf is no number.
        found = _sigmoid(self.slope * np.where(indexed, known, 0.0) + self.intercept)
        return np.where(indexed, found, 0.0)

    def missing(self, scores: npt.ArrayLike) -> Floats:
        """Probability that an image shows the class although it is not labelled with it.

        With labels missing at random, an unlabelled image at a score where a share g of the
        images is labelled shows the class with probability (1 - c) / c · g / (1 - g), c being the
        share of true images that were labelled (Elkan and Noto, 2008).
        """
        labelled = self.presence(scores)
        odds = labelled / np.maximum(1 - labelled, 1e-12)
        return np.minimum((1 - self.label_rate) / self.label_rate * odds, 1.0)

    def score_of_missing(self, probability: float) -> float:
        """The score from which ``missing`` reaches a probability in (0, 1), but for rounding."""
        if self.label_rate == 1:
            return float(np.inf)
        log_odds = np.log(probability * self.label_rate / (1 - self.label_rate))
        if self.slope == 0:
            return float(-np.inf if self.intercept >= log_odds else np.inf)
        return float((log_odds - self.intercept) / self.slope)


def calibrate(
    present: npt.ArrayLike,
    absent: npt.ArrayLike,
    *,
    missing: float | None = None,
    refuted: npt.ArrayLike = (),
) -> Calibration:
    """Fit a class's scores to its labels: logistic, with Platt's targets for few images.

    Args:
        present: (P,) scores of the images labelled with the class.
        absent: (A,) scores of the images labelled without it.
        missing: Share of the true images whose label is missing; None estimates it from the
            labels among the best scores.
        refuted: Scores among ``absent`` of images that people found not to show the class; they
            are no missing labels.
    """
    right, wrong = np.sort(_floats(present)), _floats(absent)
    slope, intercept = _fit(right, wrong)
    rate = 1 - missing if missing is not None else _label_rate(right, wrong, _floats(refuted))
    return Calibration(right, slope, intercept, float(np.clip(rate, 0.01, 1.0)))


def _floats(values: npt.ArrayLike) -> npt.NDArray[np.floating[Any]]:
    """Values in float32 if they come so, else in float64."""
    array = np.asarray(values)
    return array if array.dtype == np.float32 else array.astype(np.float64)


def _fit(
    right: npt.NDArray[np.floating[Any]], wrong: npt.NDArray[np.floating[Any]]
) -> tuple[float, float]:
    """Slope and intercept of P(labelled | score) by Newton's method on binned scores."""
    constant = 0.0, float(np.log((len(right) + 1) / (len(wrong) + 1)))
    if len(right) == 0 or len(wrong) == 0:
        return constant
    low = float(min(right[0], wrong.min()))
    spread = float(max(right[-1], wrong.max())) - low
    if spread == 0:
        return constant
    # Bins make the cost of a step independent of the number of images.
    right_bins, wrong_bins = (_histogram(part, low, spread) for part in (right, wrong))
    x = np.linspace(0.0, 1.0, _BINS)
    yes = (len(right) + 1) / (len(right) + 2)
    no = 1 / (len(wrong) + 2)
    count = (right_bins + wrong_bins).astype(np.float64)
    target = right_bins * yes + wrong_bins * no
    slope, intercept = 0.0, float(np.log(target.sum() / (count - target).sum()))
    loss = _loss(slope, intercept, x, count, target)
    for _ in range(50):
        chance = _sigmoid(slope * x + intercept)
        error, curve = chance * count - target, count * chance * (1 - chance) + 1e-9
        gradient = np.array([error @ x, error.sum()])
        hessian = np.array([[curve @ (x * x), curve @ x], [curve @ x, curve.sum()]])
        step = np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient)
        scale = 1.0
        while scale > 1e-6:
            there = slope - scale * step[0], intercept - scale * step[1]
            lower = _loss(*there, x, count, target)
            if lower <= loss:
                break
            scale /= 2
        (slope, intercept), fall, loss = there, loss - lower, lower
        if fall < 1e-9 * max(loss, 1.0):
            break
    if slope <= 0:
        return constant
    return slope / spread, intercept - slope * low / spread


def _histogram(
    scores: npt.NDArray[np.floating[Any]], low: float, spread: float
) -> npt.NDArray[np.int64]:
    """(bins,) number of scores nearest to each of equally spaced values."""
    places = scores.astype(np.float64)
    places -= low
    places *= (_BINS - 1) / spread
    places += 0.5
    return np.bincount(places.astype(np.int64), minlength=_BINS)


def _loss(slope: float, intercept: float, x: Floats, count: Floats, target: Floats) -> float:
    logit = slope * x + intercept
    return float(count @ np.logaddexp(0.0, logit) - target @ logit)


def _label_rate(
    right: npt.NDArray[np.floating[Any]],
    wrong: npt.NDArray[np.floating[Any]],
    refuted: npt.NDArray[np.floating[Any]],
) -> float:
    """Share of labelled images among the best scores, pulled towards 95 % where there are few.

    At least 80 %: where more of the best hits lack a label, the query is more likely to be wrong
    than the labels.
    """
    scores = np.concatenate([right, wrong])
    if len(scores) == 0:
        return 0.95
    count = min(max(len(right) // 4, 20), len(scores))
    scores.partition(len(scores) - count)
    edge = scores[len(scores) - count]
    labelled = (right >= edge).sum()
    checked = labelled + (wrong >= edge).sum() - (refuted >= edge).sum()
    return float(np.clip((labelled + 0.95 * 20) / (checked + 20), 0.8, 0.99))


def _sigmoid(x: Floats) -> Floats:
    return np.asarray(0.5 * (1.0 + np.tanh(0.5 * x)))

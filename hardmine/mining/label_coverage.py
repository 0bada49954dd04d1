"""How much of what each image shows has a label, estimated from similarity to the class names."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardmine.mining.calibration import calibrate
from hardmine.mining.labels import ABSENT, PRESENT, Labels
from hardmine.mining.scores import ScoreCache

Floats = npt.NDArray[np.float64]

_CHUNK = 64  # classes whose scores are held at a time


class LabelCoverage:
    """The labelled share of each image, computed once and kept until the index changes.

    Args:
        labels: Presence of C classes in N images.
        scores: Similarities of the same images.
        class_phrases: For each class the phrases of its name.
    """

    def __init__(
        self, labels: Labels, scores: ScoreCache, class_phrases: tuple[tuple[str, ...], ...]
    ) -> None:
        self._labels = labels
        self._scores = scores
        self._class_phrases = class_phrases
        self._version: object = None
        self._cached: dict[float | None, Floats] = {}

    def label_share(self, missing: float | None = None) -> Floats:
        """(N,) in (0, 1]: 1 where nothing seems to be missing, or nothing was labelled at all.

        Each object counts 1 / n_c, where n_c objects of its class c are labelled, as in
        ``balance``: a rare object without its label weighs more than a common one. How many
        objects lack a label is estimated from the image's similarity to the classes that it is
        not labelled with. An image labelled as empty counts as if it showed the least worth of
        all objects.

        Args:
            missing: Share of the labels that are missing; None estimates it for each class, 0
                takes the labels as complete.
        """
        if missing == 0:
            return np.ones(len(self._labels))
        if self._version is not self._scores.version:
            self._version = self._scores.version
            self._cached.clear()
        if missing not in self._cached:
            self._cached[missing] = self._compute(missing)
        return self._cached[missing]

    def _compute(self, missing: float | None) -> Floats:
        worth = self._labels.worth()
        shown = np.flatnonzero(worth)
        if not len(shown):
            return np.ones(len(self._labels))
        lacking = np.zeros(len(self._labels))
        for start in range(0, len(shown), _CHUNK):
            rows = shown[start : start + _CHUNK].tolist()
            chunk = self._scores.rows([self._class_phrases[row] for row in rows])
            for row, scores in zip(rows, chunk, strict=True):
                status = self._labels.status(row)
                known = np.isfinite(scores)
                absent = np.flatnonzero((status == ABSENT) & known)
                present = scores[(status == PRESENT) & known]
                calibration = calibrate(present, scores[absent], missing=missing)
                if calibration.can_detect_missing:
                    lacking[absent] += worth[row] * calibration.missing(scores[absent])
        labelled = np.maximum(np.asarray(self._labels.objects() @ worth), worth[shown].min())
        return np.asarray(labelled / (labelled + lacking))

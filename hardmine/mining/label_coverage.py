"""How much of what each image shows has a label, as far as text can tell."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from hardmine.mining.calibration import calibrate
from hardmine.mining.labels import ABSENT, PRESENT, Labels
from hardmine.mining.scores import ScoreCache

Floats = npt.NDArray[np.float64]

_AT_A_TIME = 64  # classes whose scores are held together


class LabelCoverage:
    """The labelled share of each image, worked out once and kept until the index changes.

    Args:
        labels: Presence of C classes in N images.
        book: Scores of the same images.
        class_phrases: For each class what it alone is asked as.
    """

    def __init__(
        self, labels: Labels, book: ScoreCache, class_phrases: tuple[tuple[str, ...], ...]
    ) -> None:
        self._labels = labels
        self._book = book
        self._class_phrases = class_phrases
        self._state: object = None
        self._kept: dict[float | None, Floats] = {}

    def share(self, missing: float | None = None) -> Floats:
        """(N,) in (0, 1]: 1 where nothing seems to be missing, or nothing was labelled at all.

        By worth, as draws are evened out: an object counts 1 / n_c if n_c of its class c are
        labelled, so that a rare one without its label weighs more than a common one. The objects
        without a label are what the scores of the classes that an image is labelled without lead
        to expect. An image that is labelled to be empty counts as if it showed the least there is.

        Args:
            missing: Share of the labels that are missing; None estimates it for each class.
        """
        if missing == 0:
            return np.ones(len(self._labels))
        if self._state is not self._book.state:
            self._state = self._book.state
            self._kept.clear()
        if missing not in self._kept:
            self._kept[missing] = self._work_out(missing)
        return self._kept[missing]

    def _work_out(self, missing: float | None) -> Floats:
        worth = self._labels.worth()
        shown = np.flatnonzero(worth)
        if not len(shown):
            return np.ones(len(self._labels))
        lacking = np.zeros(len(self._labels))
        for start in range(0, len(shown), _AT_A_TIME):
            rows = shown[start : start + _AT_A_TIME].tolist()
            asked = self._book.rows([self._class_phrases[row] for row in rows])
            for row, scores in zip(rows, asked, strict=True):
                status = self._labels.status(row)
                known = np.isfinite(scores)
                absent = np.flatnonzero((status == ABSENT) & known)
                present = scores[(status == PRESENT) & known]
                meaning = calibrate(present, scores[absent], missing=missing)
                if meaning.tells_missing:
                    lacking[absent] += worth[row] * meaning.missing(scores[absent])
        labelled = np.maximum(np.asarray(self._labels.objects() @ worth), worth[shown].min())
        return np.asarray(labelled / (labelled + lacking))

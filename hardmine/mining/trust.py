"""How right retrieval is for each query, and what its hits mean once the labels are asked.

The labels already say which images show a class. Retrieval adds three things: which of those look
unlike the rest (hard positives), which others look like it (confusers), and which look so much
like it that the label is probably missing (suspects).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.mining.calibration import Calibration, calibrate
from hardmine.mining.confusion import Pairs
from hardmine.mining.labels import ABSENT, PRESENT, Labels
from hardmine.mining.targets import CONFUSER, HARD, HIT, POSITIVE, SUSPECT, TargetRules, Targets

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]
Row = npt.NDArray[np.floating[Any]]
# One row of N scores a query: an array, or a list of rows that are kept elsewhere.
Scores: TypeAlias = "Sequence[Row] | npt.NDArray[np.floating[Any]]"


@dataclass(frozen=True)
class Trust:
    """How far each of Q queries can be trusted.

    Attributes:
        precision: (Q,) share of the best hits that the labels confirm, drawn towards the mean of
            all queries where few labels are known; NaN where no label says anything.
        checked: (Q,) int64 hits whose label is known.
        factor: (Q,) in [0, 1], what scales retrieval's say: ``precision``, 0 where muted, 1 where
            there are no labels to doubt it.
    """

    precision: Floats
    checked: npt.NDArray[np.int64]
    factor: Floats


def measure_trust(
    scores: Scores,
    class_rows: Rows,
    labels: Labels,
    *,
    hits: int = 100,
    smoothing: float = 5.0,
    mute: float = 0.1,
) -> Trust:
    """Check each query's best hits against the labels.

    A class with n labelled images is checked on its best n hits (at least 10, at most ``hits``),
    so that a perfect query has precision 1 however rare its class. Only images whose label is
    known count: under federated labels (LVIS) those verified present or absent.

    Args:
        scores: (Q, N) similarity of each image, -inf where it is not in the index.
        class_rows: (Q,) class of each query.
        labels: Presence of C classes in N images.
        hits: Most hits checked a query.
        smoothing: Number of hits that the mean precision counts for.
        mute: Precision below which the factor is 0.
    """
    right, checked = np.zeros(len(class_rows)), np.zeros(len(class_rows), np.int64)
    num_present = labels.num_present()
    for query, class_row in enumerate(class_rows.tolist()):
        status = labels.status(class_row)
        known = np.flatnonzero((status >= ABSENT) & np.isfinite(scores[query]))
        wanted = min(max(int(num_present[class_row]), 10), hits, len(known))
        if num_present[class_row] == 0 or wanted == 0:
            continue
        best = _top(scores[query][known], wanted)
        checked[query] = wanted
        right[query] = (status[known[best]] == PRESENT).sum()
    told = checked > 0
    mean = right.sum() / checked.sum() if told.any() else 0.0
    with np.errstate(invalid="ignore"):
        precision = np.where(told, (right + smoothing * mean) / (checked + smoothing), np.nan)
    factor = np.where(told, np.where(precision >= mute, precision, 0.0), 1.0)
    return Trust(precision, checked, factor)


def split_targets(
    scores: Scores,
    class_rows: Rows,
    labels: Labels,
    trust: Trust,
    *,
    base_scores: Scores | None = None,
    conditions: tuple[str, ...] = (),
    detections: scipy.sparse.csc_matrix | None = None,
    confusion: Pairs = (),
    answering: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    rules: TargetRules | None = None,
) -> Targets:
    """Say what each image is to each query.

    Args:
        scores: (Q, N) similarity of each image, -inf where it is not in the index.
        class_rows: (Q,) class of each query.
        labels: Presence of C classes in N images.
        trust: Of the same queries.
        base_scores: (Q, N) similarity to the class's own name, for queries with a condition.
        conditions: Q conditions, ``""`` for the class itself; empty for none.
        detections: (N, C) sparse by column, the detector's best score for each class in images it
            was run on; sharpens hard positives and confusers.
        confusion: On objects of which other class the detector sees a class, and how often; their
            images are the likelier confusers.
        answering: (N,) which images answer a condition, for those where it is known; elsewhere
            similarity tells.
        rules: Shares and strengths.
    """
    rules = rules or TargetRules()
    parts: list[Targets] = []
    for query, class_row in enumerate(class_rows.tolist()):
        status = labels.status(class_row)
        found = None if detections is None else detections[:, [class_row]].toarray()[:, 0]
        condition = conditions[query] if conditions else ""
        view = _View(query, scores[query], float(trust.factor[query]), rules)
        if condition:
            base = scores[query] if base_scores is None else base_scores[query]
            told = (answering or {}).get(condition)
            if told is None:
                told = labels.of_size(condition, class_row)
            parts.append(view.answering(np.flatnonzero(status == PRESENT), base, told))
            meaning = None
        else:
            meaning = view.meaning(status)
            parts.append(view.positives(np.flatnonzero(status == PRESENT), found))
            if meaning is not None:
                seen = _confused(confusion, class_row, labels) if found is None else found
                parts.extend(view.alike(np.flatnonzero(status == ABSENT), meaning, seen))
        parts.append(view.pool(np.flatnonzero(~labels.labelled), meaning))
    return Targets.join(parts)


@dataclass(frozen=True)
class _View:
    """One query over N images."""

    query: int
    scores: Row
    factor: float
    rules: TargetRules

    def meaning(self, status: npt.NDArray[np.int8]) -> Calibration | None:
        """The class's scores against its labels; None where none is labelled and indexed."""
        scored = np.isfinite(self.scores)
        present = self.scores[(status == PRESENT) & scored]
        if len(present) == 0:
            return None
        return calibrate(
            present, self.scores[(status == ABSENT) & scored], missing=self.rules.missing
        )

    def positives(self, rows: Rows, found: Floats | None) -> Targets:
        """Labelled images: never below what labels alone would give, more where atypical."""
        hardness = 1 - _rank_share(self.scores[rows])
        if found is not None:
            hardness = (hardness + 1 - np.clip(found[rows], 0, 1)) / 2
        hardness *= self.factor
        kinds = np.where(hardness > 0.5, HARD, POSITIVE)
        return self._targets(rows, kinds, self.rules.base + (1 - self.rules.base) * hardness)

    def answering(self, rows: Rows, base: Row, told: npt.NDArray[np.bool_] | None) -> Targets:
        """Labelled images under the condition: those told, else by similarity.

        A condition's own part is what its text adds over the class's name: the labels know the
        class already, and a class that is hard to see there must not hide the condition.
        """
        if told is not None:
            rows = rows[told[rows]]
            return self._targets(rows, np.full(len(rows), HARD), np.ones(len(rows)))
        rows = rows[np.isfinite(self.scores[rows])]
        added = self.scores[rows].astype(np.float64) - base[rows]
        answer = 1 - (1 - _rank_share(added)) / max(self.rules.answering, 1e-9)
        chosen = answer > 0
        return self._targets(rows[chosen], np.full(chosen.sum(), HARD), answer[chosen])

    def alike(self, rows: Rows, meaning: Calibration, seen: Floats | None) -> list[Targets]:
        """Images labelled without the class that look like it: suspects and confusers.

        What the detector says of an image, ``seen`` in [0, 1], needs no trust in the query.
        """
        rows = rows[np.isfinite(self.scores[rows])]
        if (self.factor == 0 and seen is None) or len(rows) == 0:
            return []
        missing = meaning.missing(self.scores[rows])
        told = self.factor > 0 and meaning.tells_missing
        suspect = (missing >= self.rules.suspect_odds) & told
        suspects = self._targets(
            rows[suspect], np.full(suspect.sum(), SUSPECT), self.rules.suspect * missing[suspect]
        )
        rest = rows[~suspect]
        wanted = min(int(np.ceil(self.rules.confusers * len(meaning.present))), len(rest))
        # Where the detector says nothing, the most similar are the likeliest.
        chosen = _top(self.scores[rest], wanted, ties=True)
        if seen is not None:
            chosen = np.union1d(chosen, np.flatnonzero(seen[rest] > 0))
        rest = rest[np.sort(chosen)]
        close = meaning.closeness(self.scores[rest])
        doubt = np.zeros(len(rest)) if seen is None else np.clip(seen[rest], 0, 1)
        likely = 1 - (1 - close) * (1 - doubt)
        # Equally likely ones by similarity.
        best = _top(likely + 1e-6 * self.scores[rest], wanted, ties=True)
        best = np.sort(best[likely[best] > self.rules.closeness])
        strengths = self.rules.confuser * (1 - (1 - self.factor * close) * (1 - doubt))[best]
        confusers = self._targets(rest[best], np.full(len(best), CONFUSER), strengths)
        return [suspects, confusers]

    def pool(self, rows: Rows, meaning: Calibration | None) -> Targets:
        """Unlabelled images: the best of them, by calibrated probability or else by rank."""
        rows = rows[np.isfinite(self.scores[rows])]
        wanted = min(len(rows), int(np.ceil(self.rules.hits * len(rows))))
        if self.factor == 0 or wanted == 0:
            return Targets.empty()
        best = _top(self.scores[rows], wanted)
        if meaning is None:
            sure = self.factor * (1 - np.arange(wanted) / wanted)
        else:
            sure = meaning.presence(self.scores[rows[best]])
        order = np.argsort(best)
        rows, sure = rows[best][order], sure[order]
        return self._targets(rows, np.full(wanted, HIT), self.rules.hit * sure)

    def _targets(self, rows: Rows, kinds: npt.NDArray[np.int64], strengths: Floats) -> Targets:
        scores = self.scores[rows]
        return Targets(
            np.full(len(rows), self.query, np.int32),
            rows.astype(np.int64),
            kinds.astype(np.int8),
            np.clip(strengths, 0, 1).astype(np.float32),
            np.where(np.isfinite(scores), scores, np.nan).astype(np.float32),
        )


def _confused(confusion: Pairs, class_row: int, labels: Labels) -> Floats | None:
    """(N,) how often the detector sees the class on what an image is labelled with."""
    pairs = [(other, share) for row, other, share in confusion if row == class_row]
    if not pairs:
        return None
    seen = np.zeros(len(labels))
    for other, share in pairs:
        shown = labels.status(other) == PRESENT
        seen[shown] = np.maximum(seen[shown], share)
    return seen


def _top(values: npt.NDArray[np.floating], count: int, *, ties: bool = False) -> Rows:
    """Positions of the largest values, best first, equal ones by position.

    With ``ties`` all that equal the last one are in: a loop may draw an image from several rows,
    and they are to be treated alike.
    """
    if count <= 0:
        return np.zeros(0, np.int64)
    if count < len(values):
        edge = np.partition(values, len(values) - count)[len(values) - count]
        above = np.flatnonzero(values > edge)
        level = np.flatnonzero(values == edge)
        if not ties:
            level = level[: count - len(above)]
        chosen = np.sort(np.concatenate([above, level]))
    else:
        chosen = np.arange(len(values))
    return chosen[np.argsort(-values[chosen], kind="stable")].astype(np.int64)


def _rank_share(values: npt.NDArray[np.floating]) -> Floats:
    """Share of the values below each one, ties in the middle, in (0, 1); 0.5 where not finite."""
    share = np.full(len(values), 0.5)
    known = np.isfinite(values)
    ordered = np.sort(values[known])
    if len(ordered):
        below = np.searchsorted(ordered, values[known], side="left")
        upto = np.searchsorted(ordered, values[known], side="right")
        share[known] = (below + upto) / (2 * len(ordered))
    return share

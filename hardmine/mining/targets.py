"""What each image is to each query: hard positive, confuser, suspect, or hit in a pool.

The labels already say which images show a class. Retrieval adds three things: which of those look
unlike the rest (hard positives), which others look like the class (confusers), and which look so
much like it that the label is probably missing (suspects).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.encoders.templates import resolve_templates
from hardmine.errors import InputError
from hardmine.mining.calibration import Calibration, calibrate
from hardmine.mining.confusion import Pairs
from hardmine.mining.labels import ABSENT, PRESENT, Labels
from hardmine.mining.trust import Floats, Row, Rows, Scores, Trust, top_positions

# positive: labelled with the class, typical. hard: labelled, and atypical or answering a context.
# confuser: labelled without the class, but similar. suspect: so similar that the label is probably
# missing. hit: found in an unlabelled pool.
KINDS = ("positive", "hard", "confuser", "suspect", "hit")
POSITIVE, HARD, CONFUSER, SUSPECT, HIT = range(len(KINDS))

# Strength of the most typical labelled image; the least typical has 1. What labels say of a weak
# class stays in force however typical the image.
_TYPICAL = 0.75
_CONFUSERS_PER_POSITIVE = 0.5  # more would outnumber what the class has to show
_MIN_CLOSENESS = 0.5  # a confuser is more similar than this share of the labelled images
_SUSPECT_PROBABILITY = 0.5  # of a missing label: more likely than not
_CONTEXT_SHARE = 0.3  # of a class's labelled images may answer a context that was not measured


@dataclass(frozen=True)
class TargetRules:
    """How queries, scores and labels become targets. Shares and strengths lie in [0, 1].

    Attributes:
        confuser: Strength of the most similar confuser; 0 turns confusers off.
        mistaken: How far a class is drawn as often as the classes that it is mistaken for; 0 turns
            that off.
        suspect: Strength of a suspect; 0 reports it only.
        missing: Expected share of missing labels; None estimates it for each class, 0 takes the
            labels as complete.
        pool_share: Share of an unlabelled pool that may be hits of one query.
        trust: Whether what retrieval contributes is scaled by its measured precision.
        templates: Prompt templates around each phrase: a set's name, or a list of one's own.
    """

    confuser: float = 0.5
    mistaken: float = 1.0
    suspect: float = 0.0
    missing: float | None = None
    pool_share: float = 0.02
    trust: bool = True
    templates: str | tuple[str, ...] = "short"

    def __post_init__(self) -> None:
        for name in ("confuser", "mistaken", "suspect", "missing", "pool_share"):
            value = getattr(self, name)
            if name == "missing" and value is None:
                continue
            if not isinstance(value, int | float) or not 0 <= value <= 1:
                raise InputError(f"TargetRules.{name} must lie in [0, 1], got {value!r}")
        if not isinstance(self.templates, str):
            object.__setattr__(self, "templates", tuple(self.templates))
        resolve_templates(self.templates)


@dataclass(frozen=True)
class Targets:
    """T pairs of a query and an image, sorted by query, then image; each pair at most once.

    Attributes:
        query_rows: (T,) int32, position among the round's queries.
        image_rows: (T,) int64, position among the sampler's images.
        kinds: (T,) int8, position in ``KINDS``.
        strengths: (T,) float32 in [0, 1], how much of the query's need this image answers. 0 is
            reported only and raises no weight.
        scores: (T,) float32 cosine similarity, NaN where the image is not in the index.
    """

    query_rows: npt.NDArray[np.int32]
    image_rows: npt.NDArray[np.int64]
    kinds: npt.NDArray[np.int8]
    strengths: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.query_rows)
        for name in ("image_rows", "kinds", "strengths", "scores"):
            got = getattr(self, name).shape
            if got != (count,):
                raise InputError(f"Targets.{name} must have shape {(count,)}, got {got}")
        if count and not (self.strengths.min() >= 0 and self.strengths.max() <= 1):
            raise InputError(
                f"Targets.strengths must lie in [0, 1], "
                f"got {self.strengths.min()} to {self.strengths.max()}"
            )

    def __len__(self) -> int:
        return len(self.query_rows)

    def take(self, chosen: npt.NDArray[Any]) -> Targets:
        """Keep some pairs, by mask or by ascending positions."""
        return Targets(
            self.query_rows[chosen],
            self.image_rows[chosen],
            self.kinds[chosen],
            self.strengths[chosen],
            self.scores[chosen],
        )

    def boost(
        self, need: npt.NDArray[np.float64], class_rows: npt.NDArray[np.int64], num_images: int
    ) -> npt.NDArray[np.float64]:
        """Combine the queries that each image answers: (N,) in [0, 1].

        1. by class:  b_c = 1 - Π (1 - need_q · strength_q) over the class and its contexts, so
           that a weak class in a weak context counts more than either
        2. by image:  the maximum over classes, not the sum: an image that answers five queries is
           not five times as useful

        Args:
            need: (Q,) of the queries.
            class_rows: (Q,) their classes, ascending.
            num_images: N.
        """
        boost = np.zeros(num_images)
        rest = 1 - need[self.query_rows] * self.strengths
        images = self.image_rows
        if len(np.unique(class_rows)) < len(class_rows):
            pairs = class_rows[self.query_rows] * num_images + images
            order = np.argsort(pairs, kind="stable")
            starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
            rest = np.multiply.reduceat(rest[order], starts) if len(starts) else rest[:0]
            images = images[order][starts]
        np.maximum.at(boost, images, 1 - rest)
        return boost

    def counts(self, num_queries: int) -> npt.NDArray[np.int64]:
        """(Q, kinds) how many images each query has of each kind."""
        flat = self.query_rows.astype(np.int64) * len(KINDS) + self.kinds
        return np.bincount(flat, minlength=num_queries * len(KINDS)).reshape(-1, len(KINDS))

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """Make one record of several, sorted."""
        if not parts:
            return cls.empty()
        columns = [
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("query_rows", "image_rows", "kinds", "strengths", "scores")
        ]
        order = np.lexsort((columns[1], columns[0]))
        return cls(*(column[order] for column in columns))

    @classmethod
    def empty(cls) -> Targets:
        """No pairs at all."""
        return cls(
            np.zeros(0, np.int32),
            np.zeros(0, np.int64),
            np.zeros(0, np.int8),
            np.zeros(0, np.float32),
            np.zeros(0, np.float32),
        )


def split_targets(
    scores: Scores,
    class_rows: Rows,
    labels: Labels,
    trust: Trust,
    *,
    base_scores: Scores | None = None,
    contexts: Sequence[str] = (),
    confusion: Pairs = (),
    answering: Mapping[str, npt.NDArray[np.bool_]] | None = None,
    rules: TargetRules | None = None,
) -> Targets:
    """Decide what each image is to each query.

    Args:
        scores: (Q, N) similarity of each image, -inf where it is not in the index.
        class_rows: (Q,) class of each query.
        labels: Presence of C classes in N images.
        trust: Of the same queries.
        base_scores: (Q, N) similarity to the class's own name, for queries with a context.
        contexts: Q contexts, ``""`` for the class itself; empty if no query has one.
        confusion: ``Confusion.detected_on``. Images of a class that another is detected on become
            that one's confusers first.
        answering: (N,) which images answer a context, where that was measured; similarity decides
            elsewhere.
        rules: Shares and strengths.
    """
    rules = rules or TargetRules()
    parts: list[Targets] = []
    for query, class_row in enumerate(class_rows.tolist()):
        status = labels.status(class_row)
        positives = np.flatnonzero(status == PRESENT)
        view = _QueryView(query, scores[query], float(trust.factor[query]), rules)
        context = contexts[query] if contexts else ""
        calibration = None
        if context:
            base = scores[query] if base_scores is None else base_scores[query]
            measured = (answering or {}).get(context)
            if measured is None:
                measured = labels.of_size(context, class_row)
            parts.append(view.in_context(positives, base, measured))
        else:
            calibration = view.calibrate(status)
            parts.append(view.positives(positives))
            if calibration is not None:
                detected = _detected_on(confusion, class_row, labels)
                negatives = np.flatnonzero(status == ABSENT)
                parts.extend(view.similar_negatives(negatives, calibration, detected))
        parts.append(view.pool_hits(np.flatnonzero(~labels.labelled), calibration))
    return Targets.join(parts)


@dataclass(frozen=True)
class _QueryView:
    """One query over N images."""

    query: int
    scores: Row
    factor: float
    rules: TargetRules

    def calibrate(self, status: npt.NDArray[np.int8]) -> Calibration | None:
        """The class's scores against its labels; None where none is labelled and indexed."""
        scored = np.isfinite(self.scores)
        present = self.scores[(status == PRESENT) & scored]
        if len(present) == 0:
            return None
        absent = self.scores[(status == ABSENT) & scored]
        return calibrate(present, absent, missing=self.rules.missing)

    def positives(self, rows: Rows) -> Targets:
        """Labelled images: at least what labels alone would give, more where atypical."""
        hardness = (1 - _rank_share(self.scores[rows])) * self.factor
        kinds = np.where(hardness > 0.5, HARD, POSITIVE)
        return self._targets(rows, kinds, _TYPICAL + (1 - _TYPICAL) * hardness)

    def in_context(self, rows: Rows, base: Row, measured: npt.NDArray[np.bool_] | None) -> Targets:
        """Labelled images in the context: those measured to answer it, else by similarity.

        Similarity counts by what the context adds to the class's name. A class that is hard to
        recognise in the context must not hide it.
        """
        if measured is not None:
            rows = rows[measured[rows]]
            return self._targets(rows, np.full(len(rows), HARD), np.ones(len(rows)))
        rows = rows[np.isfinite(self.scores[rows])]
        added = self.scores[rows].astype(np.float64) - base[rows]
        strengths = 1 - (1 - _rank_share(added)) / _CONTEXT_SHARE
        chosen = strengths > 0
        return self._targets(rows[chosen], np.full(chosen.sum(), HARD), strengths[chosen])

    def similar_negatives(
        self, rows: Rows, calibration: Calibration, detected: Floats | None
    ) -> list[Targets]:
        """Images labelled without the class that look like it: suspects and confusers.

        Args:
            rows: Images labelled without the class.
            calibration: Of the class.
            detected: (N,) in [0, 1], how often the detector sees the class on what an image shows.
                This counts in full even where the query is not trusted.
        """
        rows = rows[np.isfinite(self.scores[rows])]
        if (self.factor == 0 and detected is None) or len(rows) == 0:
            return []
        missing = calibration.missing(self.scores[rows])
        can_tell = self.factor > 0 and calibration.can_detect_missing
        suspect = (missing >= _SUSPECT_PROBABILITY) & can_tell
        suspects = self._targets(
            rows[suspect], np.full(suspect.sum(), SUSPECT), self.rules.suspect * missing[suspect]
        )
        rest = rows[~suspect]
        limit = int(np.ceil(_CONFUSERS_PER_POSITIVE * len(calibration.present)))
        limit = min(limit, len(rest))
        chosen = top_positions(self.scores[rest], limit, include_ties=True)
        if detected is not None:
            chosen = np.union1d(chosen, np.flatnonzero(detected[rest] > 0))
        rest = rest[np.sort(chosen)]
        closeness = calibration.closeness(self.scores[rest])
        confused = np.zeros(len(rest)) if detected is None else np.clip(detected[rest], 0, 1)
        likely = 1 - (1 - closeness) * (1 - confused)
        # Equally likely ones by similarity.
        best = top_positions(likely + 1e-6 * self.scores[rest], limit, include_ties=True)
        best = np.sort(best[likely[best] > _MIN_CLOSENESS])
        trusted = 1 - (1 - self.factor * closeness) * (1 - confused)
        strengths = self.rules.confuser * trusted[best]
        confusers = self._targets(rest[best], np.full(len(best), CONFUSER), strengths)
        return [suspects, confusers]

    def pool_hits(self, rows: Rows, calibration: Calibration | None) -> Targets:
        """The best unlabelled images, by calibrated probability or else by rank."""
        rows = rows[np.isfinite(self.scores[rows])]
        limit = min(len(rows), int(np.ceil(self.rules.pool_share * len(rows))))
        if self.factor == 0 or limit == 0:
            return Targets.empty()
        best = top_positions(self.scores[rows], limit)
        if calibration is None:
            probability = self.factor * (1 - np.arange(limit) / limit)
        else:
            probability = calibration.presence(self.scores[rows[best]])
        order = np.argsort(best)
        return self._targets(rows[best][order], np.full(limit, HIT), probability[order])

    def _targets(self, rows: Rows, kinds: npt.NDArray[np.int64], strengths: Floats) -> Targets:
        scores = self.scores[rows]
        return Targets(
            np.full(len(rows), self.query, np.int32),
            rows.astype(np.int64),
            kinds.astype(np.int8),
            np.clip(strengths, 0, 1).astype(np.float32),
            np.where(np.isfinite(scores), scores, np.nan).astype(np.float32),
        )


def _detected_on(confusion: Pairs, class_row: int, labels: Labels) -> Floats | None:
    """(N,) how often the detector sees the class on what an image is labelled with."""
    pairs = [(other, share) for row, other, share in confusion if row == class_row]
    if not pairs:
        return None
    detected = np.zeros(len(labels))
    for other, share in pairs:
        shown = labels.status(other) == PRESENT
        detected[shown] = np.maximum(detected[shown], share)
    return detected


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

"""What the labels say about the images that each query ranks: all that rounds need of its scores.

A round asks little of the N scores of a query: those of the images labelled with its class, of the
few others that score as high, and how right the best are. None of it changes while index and
labels stay the same, so it is found once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hardmine.mining.calibration import Calibration, calibrate
from hardmine.mining.checked import NOT_CHECKED, CheckedLabels, CheckedRows, with_checks
from hardmine.mining.labels import ABSENT, PRESENT, Labels
from hardmine.mining.queries import Queries
from hardmine.mining.scores import Row, ScoreCache

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

# labelled: with the query's class. similar: labelled without it, more similar than most of those
# that are. suspect: so similar that the label is probably missing. pooled: of the best of an
# unlabelled pool.
LABELLED, SIMILAR, SUSPECTED, POOLED = range(4)

_SIMILAR_PER_LABELLED = 0.5  # more would outnumber what the class has to show
_SUSPECT_PROBABILITY = 0.5  # of a missing label: more likely than not
_CHECKED_HITS = 100  # at most, of a query's best hits
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Evidence:
    """One query's scores, held against the labels of its class.

    Attributes:
        rows: (K,) int32 ascending images.
        roles: (K,) int8 ``LABELLED``, ``SIMILAR``, ``SUSPECTED`` or ``POOLED``.
        scores: (K,) float32 similarity, NaN where the image is not in the index.
        shares: (K,) in [0, 1]. Labelled and similar: share of the labelled images that score lower.
            In a context: by what the context adds to the class's score. Suspected: probability of
            a missing label. Pooled: probability of being labelled, without labels the share of the
            pool's best that score lower. Of equal ones half count as lower.
        correct: Number of the best hits that the labels confirm.
        checked: Number of the best hits whose label is known.
        calibration: Of the class; None for a context, or where nothing is labelled and indexed.
    """

    rows: npt.NDArray[np.int32]
    roles: npt.NDArray[np.int8]
    scores: npt.NDArray[np.float32]
    shares: Floats
    correct: int
    checked: int
    calibration: Calibration | None

    def take(self, chosen: npt.NDArray[np.bool_]) -> Evidence:
        """Keep some images."""
        return replace(
            self,
            rows=self.rows[chosen],
            roles=self.roles[chosen],
            scores=self.scores[chosen],
            shares=self.shares[chosen],
        )

    @property
    def nbytes(self) -> int:
        """Memory of the arrays."""
        kept = 0 if self.calibration is None else self.calibration.present.nbytes
        return kept + sum(x.nbytes for x in (self.rows, self.roles, self.scores, self.shares))


def gather_evidence(
    scores: Row,
    class_row: int,
    labels: Labels,
    *,
    missing: float | None = None,
    pool_share: float = 0.02,
    base: Evidence | None = None,
    checked: CheckedRows = NOT_CHECKED,
) -> Evidence:
    """Hold a query's scores against the labels of its class.

    An image that people found to show the class confirms the query like a labelled one, but has no
    role: to draw it more often would teach the detector that nothing is there. One found to show
    something else is never suspected: the more similar it is, the sooner it is a confuser.

    Args:
        scores: (N,) similarity of each image, -inf where it is not in the index.
        class_row: Class of the query.
        labels: Presence of C classes in N images.
        missing: As in ``TargetRules``.
        pool_share: As in ``TargetRules``.
        base: Of the class's own name, for a query with a context.
        checked: Images of the class that people checked. Labels made since then count instead.
    """
    scores = np.asarray(scores, np.float32)
    status, confirmed = with_checks(labels.status(class_row), checked)
    indexed = np.isfinite(scores)
    labelled = np.flatnonzero(status == PRESENT)
    absent = np.flatnonzero((status == ABSENT) & indexed)
    shown = np.concatenate([labelled, confirmed])
    known = shown[indexed[shown]]
    right, wrong = scores[known], scores[absent]
    correct, num_checked = _check_best(right, wrong, known, absent, len(shown))
    found = np.where(indexed[labelled], scores[labelled], np.float32(np.nan))
    calibration, parts = None, []
    if base is not None:
        added = found.astype(np.float64) - base.scores[base.roles == LABELLED]
        parts.append(_Part(LABELLED, labelled, found, _rank_share(added)))
    else:
        parts.append(_Part(LABELLED, labelled, found, _rank_share(found)))
        if len(right):
            refuted = np.isin(absent, checked.absent)
            calibration = calibrate(right, wrong, missing=missing, refuted=wrong[refuted])
            parts += _similar_negatives(absent, wrong, refuted, calibration)
    if not labels.labelled.all():
        unlabelled = ~labels.labelled & (status != ABSENT) & indexed
        unlabelled[confirmed] = False
        pool = np.flatnonzero(unlabelled)
        parts.append(_best_of_pool(pool, scores[pool], calibration, pool_share))
    roles = np.concatenate([np.full(len(part.rows), part.role, np.int8) for part in parts])
    rows = np.concatenate([part.rows for part in parts])
    order = np.argsort(rows, kind="stable")
    return Evidence(
        rows[order].astype(np.int32),
        roles[order],
        np.concatenate([part.scores for part in parts])[order],
        np.concatenate([part.shares for part in parts])[order],
        correct,
        num_checked,
        calibration,
    )


class EvidenceCache:
    """The evidence of queries, gathered once and kept from round to round.

    Args:
        scores: Similarity of texts to the images.
        labels: Of the same images.
        class_phrases: For each class the phrases of its name.
        max_bytes: Memory for evidence; beyond it, what the current request does not use is dropped.
    """

    def __init__(
        self,
        scores: ScoreCache,
        labels: Labels,
        class_phrases: Sequence[tuple[str, ...]],
        *,
        max_bytes: int = _MAX_BYTES,
    ) -> None:
        self._scores, self._labels, self._class_phrases = scores, labels, class_phrases
        self._max_bytes = max_bytes
        self._kept: dict[_Key, Evidence] = {}
        self._version: object = None

    def of(
        self,
        queries: Queries,
        *,
        missing: float | None = None,
        pool_share: float = 0.02,
        checked: CheckedLabels | None = None,
    ) -> list[Evidence]:
        """Evidence of each of Q queries.

        Args:
            queries: Queries; one with a context is compared with the name of its class.
            missing: As in ``TargetRules``.
            pool_share: As in ``TargetRules``.
            checked: What people found; None for nothing.
        """
        checked = checked or CheckedLabels()
        if self._scores.version is not self._version:
            self._version = self._scores.version
            self._kept.clear()
        keys = [
            _Key(texts, row, bool(context), missing, pool_share, checked.of_class(row))
            for texts, row, context in zip(
                queries.phrases, queries.class_rows.tolist(), queries.contexts, strict=True
            )
        ]
        names = {
            key.class_row: key._replace(
                phrases=self._class_phrases[key.class_row], in_context=False
            )
            for key in keys
            if key.in_context
        }
        if sum(found.nbytes for found in self._kept.values()) > self._max_bytes:
            used = {*keys, *names.values()}
            self._kept = {key: found for key, found in self._kept.items() if key in used}
        self._gather([*names.values(), *(key for key in keys if not key.in_context)], names)
        self._gather([key for key in keys if key.in_context], names)
        return [self._kept[key] for key in keys]

    def _gather(self, keys: Sequence[_Key], names: Mapping[int, _Key]) -> None:
        new = [key for key in dict.fromkeys(keys) if key not in self._kept]
        for key, scores in zip(new, self._scores.each([key.phrases for key in new]), strict=True):
            self._kept[key] = gather_evidence(
                scores,
                key.class_row,
                self._labels,
                missing=key.missing,
                pool_share=key.pool_share,
                base=self._kept[names[key.class_row]] if key.in_context else None,
                checked=key.checked,
            )


class _Key(NamedTuple):
    phrases: tuple[str, ...]
    class_row: int
    in_context: bool
    missing: float | None
    pool_share: float
    checked: CheckedRows


class _Part(NamedTuple):
    """Images in one role: rows, scores and shares as in ``Evidence``."""

    role: int
    rows: Rows
    scores: npt.NDArray[np.float32]
    shares: Floats


def _check_best(
    right: npt.NDArray[np.float32],
    wrong: npt.NDArray[np.float32],
    right_rows: Rows,
    wrong_rows: Rows,
    num_labelled: int,
) -> tuple[int, int]:
    """How many of the best hits the labels confirm, and how many were checked.

    A class with n labelled images is checked on its best n hits, at least 10 and at most 100, so
    that a perfect query is right throughout however rare its class. Equal scores count by row.
    """
    count = min(max(num_labelled, 10), _CHECKED_HITS, len(right) + len(wrong))
    if num_labelled == 0 or count == 0:
        return 0, 0
    scores = np.concatenate([right, wrong])
    scores.partition(len(scores) - count)
    edge = scores[len(scores) - count]
    correct = int((right > edge).sum())
    ties = np.concatenate([right_rows[right == edge], wrong_rows[wrong == edge]])
    taken = np.argsort(ties, kind="stable")[: count - correct - int((wrong > edge).sum())]
    return correct + int((taken < (right == edge).sum()).sum()), count


def _similar_negatives(
    rows: Rows,
    scores: npt.NDArray[np.float32],
    refuted: npt.NDArray[np.bool_],
    calibration: Calibration,
) -> list[_Part]:
    """Images labelled without the class that look like it: suspects, and the most similar others.

    Args:
        rows: (A,) images labelled without the class.
        scores: (A,) their similarity.
        refuted: (A,) which people found to show something else.
        calibration: Of the class.
    """
    present = calibration.present
    # More similar than half of the labelled images.
    near = np.flatnonzero(scores > present[len(present) // 2])
    suspect = np.zeros(0, np.int64)
    if calibration.can_detect_missing:
        edge = calibration.score_of_missing(_SUSPECT_PROBABILITY)
        likely = np.flatnonzero(~refuted & (scores >= edge - 1e-6 * abs(edge)))
        suspect = likely[calibration.missing(scores[likely]) >= _SUSPECT_PROBABILITY]
        near = near[~np.isin(near, suspect, assume_unique=True)] if len(suspect) else near
    limit = int(np.ceil(_SIMILAR_PER_LABELLED * len(present)))
    near = near[top_positions(scores[near], limit)]
    return [
        _Part(SIMILAR, rows[near], scores[near], calibration.closeness(scores[near])),
        _Part(SUSPECTED, rows[suspect], scores[suspect], calibration.missing(scores[suspect])),
    ]


def _best_of_pool(
    rows: Rows, scores: npt.NDArray[np.float32], calibration: Calibration | None, share: float
) -> _Part:
    """The best unlabelled images, by calibrated probability or else by rank."""
    best = top_positions(scores, int(np.ceil(share * len(rows))))
    found = scores[best]
    shares = _rank_share(found) if calibration is None else calibration.presence(found)
    return _Part(POOLED, rows[best], found, shares)


def _rank_share(values: npt.NDArray[np.floating]) -> Floats:
    """Share of the values below each one, ties in the middle, in (0, 1); 0.5 where not finite."""
    share = np.full(len(values), 0.5)
    known = np.flatnonzero(np.isfinite(values))
    if len(known):
        order = known[np.argsort(values[known], kind="stable")]
        starts = np.flatnonzero(np.diff(values[order], prepend=-np.inf))
        counts = np.diff(starts, append=len(order))
        # Below a value lie the values before its group of equal ones, and half of the group.
        share[order] = np.repeat((2 * starts + counts) / (2 * len(order)), counts)
    return share


def top_positions(values: npt.NDArray[np.floating], count: int) -> Rows:
    """Positions of the largest values, best first, equal ones by position.

    All that equal the last one are included: several of the sampler's rows may show the same image,
    and they must be treated alike.
    """
    if count <= 0:
        return np.zeros(0, np.int64)
    chosen = np.arange(len(values))
    if count < len(values):
        chosen = np.flatnonzero(values >= np.partition(values, len(values) - count)[-count])
    return chosen[np.argsort(-values[chosen], kind="stable")].astype(np.int64)

"""What each image is to each query: hard positive, confuser, suspect, or hit in a pool.

The labels already say which images show a class. Retrieval adds three things: which of those look
unlike the rest (hard positives), which others look like the class (confusers), and which look so
much like it that the label is probably missing (suspects).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from hardmine.encoders.templates import resolve_templates
from hardmine.errors import InputError
from hardmine.mining.evidence import LABELLED, Evidence
from hardmine.mining.labels import Labels
from hardmine.mining.trust import Trust

Floats = npt.NDArray[np.float64]
Rows = npt.NDArray[np.int64]

# positive: labelled with the class, typical. hard: labelled, and atypical or answering a context.
# confuser: labelled without the class, but similar. suspect: so similar that the label is probably
# missing. Both are reported, and drawn as before. hit: found in an unlabelled pool.
KINDS = ("positive", "hard", "confuser", "suspect", "hit")
POSITIVE, HARD, CONFUSER, SUSPECT, HIT = range(len(KINDS))

# Strength of the most typical labelled image; the least typical has 1. What labels say of a weak
# class stays in force however typical the image.
_TYPICAL = 0.75
_CONTEXT_SHARE = 0.3  # of a class's labelled images may answer a context that was not measured


@dataclass(frozen=True)
class TargetRules:
    """How queries, scores and labels become targets. Shares and strengths lie in [0, 1].

    Attributes:
        mistaken: How far a class is drawn as often as the classes that it is mistaken for; 0 turns
            that off.
        missing: Expected share of missing labels; None estimates it for each class, 0 takes the
            labels as complete.
        pool_share: Share of an unlabelled pool that may be hits of one query.
        templates: Prompt templates around each phrase: a set's name, or a list of one's own.
    """

    mistaken: float = 1.0
    missing: float | None = None
    pool_share: float = 0.02
    templates: str | tuple[str, ...] = "short"

    def __post_init__(self) -> None:
        for name in ("mistaken", "missing", "pool_share"):
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
        strengths: (T,) float32 in [0, 1], how much of the query's need this image answers; 0 for
            confusers and suspects.
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
    evidence: Sequence[Evidence],
    class_rows: Rows,
    labels: Labels,
    trust: Trust,
    *,
    contexts: Sequence[str] = (),
    answering: Mapping[str, npt.NDArray[np.bool_]] | None = None,
) -> Targets:
    """Decide what each image is to each query.

    Args:
        evidence: Of Q queries.
        class_rows: (Q,) class of each query.
        labels: Presence of C classes in N images.
        trust: Of the same queries.
        contexts: Q contexts, ``""`` for the class itself; empty if no query has one.
        answering: (N,) which images answer a context, where that was measured; similarity decides
            elsewhere.
    """
    parts = []
    for query, (found, class_row) in enumerate(zip(evidence, class_rows.tolist(), strict=True)):
        factor = float(trust.factor[query])
        context = contexts[query] if contexts else ""
        if context:
            measured = (answering or {}).get(context)
            if measured is None:
                measured = labels.of_size(context, class_row)
            part = _in_context(found, factor, measured)
        else:
            part = _of_class(found, factor)
        parts.append(part)
    if not parts:
        return Targets.empty()
    return Targets(
        np.repeat(np.arange(len(parts), dtype=np.int32), [len(part.rows) for part in parts]),
        np.concatenate([part.rows for part in parts], dtype=np.int64),
        np.concatenate([part.kinds for part in parts]),
        np.concatenate([part.strengths for part in parts]),
        np.concatenate([part.scores for part in parts]),
    )


class _Part(NamedTuple):
    """The targets of one query, as in ``Targets``."""

    rows: npt.NDArray[np.signedinteger[Any]]
    kinds: npt.NDArray[np.int8]
    strengths: npt.NDArray[np.float32]
    scores: npt.NDArray[np.float32]


def _part(
    rows: npt.NDArray[np.signedinteger[Any]],
    kinds: npt.NDArray[Any],
    strengths: Floats,
    scores: npt.NDArray[np.float32],
) -> _Part:
    return _Part(rows, kinds.astype(np.int8), strengths.clip(0, 1).astype(np.float32), scores)


def _of_class(found: Evidence, factor: float) -> _Part:
    """Targets of a class's own name.

    Labelled images: at least what labels alone would give, more where atypical. Retrieval adds the
    rest as far as it is trusted.
    """
    if factor == 0:
        found = found.take(found.roles == LABELLED)
    hardness = (1 - found.shares) * factor
    pooled = found.shares if found.calibration is not None else factor * found.shares
    # By role: labelled, similar, suspected, pooled.
    kinds = np.choose(
        found.roles, [np.where(hardness > 0.5, HARD, POSITIVE), CONFUSER, SUSPECT, HIT]
    )
    strengths = np.choose(found.roles, [_TYPICAL + (1 - _TYPICAL) * hardness, 0.0, 0.0, pooled])
    return _part(found.rows, kinds, strengths, found.scores)


def _in_context(found: Evidence, factor: float, measured: npt.NDArray[np.bool_] | None) -> _Part:
    """Labelled images in the context: those measured to answer it, else by similarity.

    Similarity counts by what the context adds to the class's name. A class that is hard to
    recognise in the context must not hide it.
    """
    labelled = found.roles == LABELLED
    if measured is not None:
        strengths = np.where(measured[found.rows], 1.0, 0.0)
    else:
        strengths = 1 - (1 - found.shares) / _CONTEXT_SHARE
        strengths = np.where(np.isfinite(found.scores), strengths, 0.0)
    pooled = ~labelled & (factor > 0)
    strengths = np.where(labelled, strengths, factor * found.shares)
    chosen = pooled | (labelled & (strengths > 0))
    return _part(
        found.rows[chosen],
        np.where(labelled[chosen], HARD, HIT),
        strengths[chosen],
        found.scores[chosen],
    )

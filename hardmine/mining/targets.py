"""What a round aims at: which image answers which query, in what way and how strongly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError

KINDS = ("positive", "hard", "confuser", "suspect", "hit")
POSITIVE, HARD, CONFUSER, SUSPECT, HIT = range(len(KINDS))


@dataclass(frozen=True)
class TargetRules:
    """How scores and labels become targets; every share and strength lies in [0, 1].

    Attributes:
        base: Strength of an ordinary labelled image of a weak class; the hardest has 1.
        confuser: Strength of the most alike confuser; 0 turns confusers off.
        confusers: At most so many confusers for each image labelled with the class.
        closeness: A confuser scores above this share of the class's labelled images.
        taken: How far a class whose objects the detector takes for others is drawn as often as
            those; 0 turns that off.
        suspect: Strength of a suspect; 0 reports it only.
        suspect_odds: Probability of a missing label from which an image is a suspect.
        missing: Expected share of missing labels; None estimates it for each class, 0 takes the
            labels as complete.
        hit: Strength of the best hit in an unlabelled pool.
        hits: Share of an unlabelled pool that may be hits of one query.
        answering: Share of a class's labelled images that may answer a condition.
        mute: Trust below which retrieval is not listened to.
        trust: Whether retrieval's say is scaled by how right it is.
    """

    base: float = 0.75
    confuser: float = 0.5
    confusers: float = 0.5
    closeness: float = 0.5
    taken: float = 1.0
    suspect: float = 0.0
    suspect_odds: float = 0.5
    missing: float | None = None
    hit: float = 1.0
    hits: float = 0.02
    answering: float = 0.3
    mute: float = 0.1
    trust: bool = True

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and not (0 <= value <= 1 or (name == "confusers" and value >= 0)):
                raise InputError(f"TargetRules.{name} must lie in [0, 1], got {value}")


@dataclass(frozen=True)
class Targets:
    """T pairs of a query and an image, sorted by query, then image; each pair at most once.

    Attributes:
        query_rows: (T,) int32, position among the round's queries.
        image_rows: (T,) int64, position among the sampler's images.
        kinds: (T,) int8, position in ``KINDS``: labelled and ordinary (positive), labelled and
            atypical or answering a condition (hard), alike but labelled absent (confuser), so alike
            that the label is probably missing (suspect), from the unlabelled pool (hit).
        strengths: (T,) float32 in [0, 1]: how much of the query's need this image answers;
            0 is reported only and raises no weight.
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
        """What the queries ask of each image: (N,) in [0, 1].

        1. by class:  b_c = 1 - Π (1 - need_q · strength_q) over the class and its conditions, so
           that a weak class in a weak condition is wanted more than either
        2. by image:  the maximum over classes, not the sum: an image that answers five queries is
           not five times as useful

        Args:
            need: (Q,) of the queries.
            class_rows: (Q,) their classes, ascending.
            num_images: N.
        """
        boost = np.zeros(num_images)
        left = 1 - need[self.query_rows] * self.strengths
        images = self.image_rows
        if len(np.unique(class_rows)) < len(class_rows):
            pairs = class_rows[self.query_rows] * num_images + images
            order = np.argsort(pairs, kind="stable")
            starts = np.flatnonzero(np.diff(pairs[order], prepend=-1))
            left = np.multiply.reduceat(left[order], starts) if len(starts) else left[:0]
            images = images[order][starts]
        np.maximum.at(boost, images, 1 - left)
        return boost

    def counts(self, num_queries: int) -> npt.NDArray[np.int64]:
        """(Q, kinds) how many images each query has of each kind."""
        flat = self.query_rows.astype(np.int64) * len(KINDS) + self.kinds
        return np.bincount(flat, minlength=num_queries * len(KINDS)).reshape(-1, len(KINDS))

    @classmethod
    def join(cls, parts: Sequence[Targets]) -> Targets:
        """One record from several, sorted again."""
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

"""Finds the conditions in which a detector fails, without being told one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from hardmine.detections import FailureTest, Matches, Outcomes, benjamini_hochberg, find_outcomes
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.mining.contexts import PLAIN, answer_threshold, context_phrases
from hardmine.mining.need import as_texts
from hardmine.mining.queries import embed_queries
from hardmine.records import ImageSet, names_to_rows

Floats = npt.NDArray[np.float64]

AUTO = "auto"  # in place of a context: find the contexts
FALSE_DISCOVERY_RATE = 0.05  # of the conditions that are found, so many may be chance
MAX_FOUND = 5
_STAYS = 1.0  # z from which a condition of the round before stays
MIN_MORE = 0.03  # share of objects or detections that fail more than usual; less is not worth it


@dataclass(frozen=True)
class Condition:
    """A condition in which the detector fails more often than on the same classes and sizes else.

    Attributes:
        text: Such as ``"at night"``.
        p: How often chance alone shows as much.
        num_objects: Validation objects in the condition.
        missed: Share of them that is missed, in [0, 1].
        missed_usually: Share of all objects of the same classes and sizes that is missed.
        num_detections: Confident detections in the condition.
        false: Share of them that is false.
        false_usually: Share of all detections of the same classes and sizes that is false.
    """

    text: str
    p: float
    num_objects: int
    missed: float
    missed_usually: float
    num_detections: int
    false: float
    false_usually: float

    @property
    def matters(self) -> bool:
        """Whether enough more fails in it than usually; large data make small effects sure."""
        return max(self.missed - self.missed_usually, self.false - self.false_usually) >= MIN_MORE

    @property
    def failures(self) -> str:
        """How often the detector fails in it, in words."""
        return (
            f"{100 * self.missed:.0f} % of {self.num_objects:,} objects missed, "
            f"usually {100 * self.missed_usually:.0f} %; {100 * self.false:.0f} % of "
            f"{self.num_detections:,} detections false, usually {100 * self.false_usually:.0f} %"
        )

    def __str__(self) -> str:
        return f"{self.text} (p {self.p:.0e}): {self.failures}"


def read_contexts(contexts: str | Sequence[str]) -> tuple[str, ...]:
    """Check contexts that a user gives.

    >>> read_contexts("auto"), read_contexts(["at night"])
    (('auto',), ('at night',))
    """
    if isinstance(contexts, str) and contexts != AUTO:
        raise InputError(
            f'contexts must be a list of texts, such as ["at night"], or {AUTO!r}; got {contexts!r}'
        )
    return (AUTO,) if contexts == AUTO else as_texts("contexts", contexts)


def vocabulary(words: Iterable[str] = ()) -> tuple[str, ...]:
    """The conditions that are tried: those of ``conditions.txt``, and words of one's own."""
    text = (files("hardmine.mining") / "conditions.txt").read_text(encoding="utf-8")
    lines = (line.strip() for line in text.splitlines())
    return tuple(dict.fromkeys([*(line for line in lines if line and line[0] != "#"), *words]))


class ConditionFinder:
    """Tries a vocabulary of conditions on the validation images.

    1. Each object, and each confident detection, has a vector: the mean of the region that fits its
       box best and of the whole image. It answers a condition by its similarity to "photo at night"
       minus that to "photo".
    2. Are objects missed, and are detections false, more often the more they answer? Class and size
       are held fixed; see ``FailureTest``.
    3. Of those found at a false discovery rate of 5 %, the surest is kept, then the surest of those
       that tell something beyond it, and so on: of several that say the same one is left.
    4. Conditions of the round before come first, and stay until they are refuted.
    5. A new one in which hardly more fails than usually, however sure, is left out.

    Args:
        images: Validation images with labels.
        index: Holds them; those that it lacks, or has no regions of, are left out.
        encoder: The one that made the index.
        class_names: Objects and detections of other classes do not count.
        conditions: What is tried.
    """

    def __init__(
        self,
        images: ImageSet,
        index: Index,
        encoder: Encoder,
        *,
        class_names: Sequence[str],
        conditions: Sequence[str],
    ) -> None:
        self.conditions = tuple(conditions)
        self.images, self.index, self.encoder = images, index, encoder
        self._known = names_to_rows(images.class_names, class_names) >= 0
        self._kept: tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]] | None = None

    def find(self, matches: Matches, *, kept: Sequence[str] = ()) -> tuple[Condition, ...]:
        """Find conditions in which the detector fails, at most ``MAX_FOUND``, the surest first.

        Args:
            matches: Of the detector on the validation images.
            kept: Conditions that the round before found.
        """
        groups = [self.known(every) for every in find_outcomes(self.images, matches)]
        values = [self._object_values(groups[0], matches.counted), self._values(groups[1])]
        tests = [FailureTest(group, value) for group, value in zip(groups, values, strict=True)]
        p, z = _combined(tests)
        allowed = benjamini_hochberg(p, FALSE_DISCOVERY_RATE)
        chosen = [row for text in kept for row in _row(self.conditions, text) if z[row] >= _STAYS]
        left = [row for row in np.flatnonzero(p <= allowed).tolist() if row not in chosen]
        while left and len(chosen) < MAX_FOUND:
            # To the bit the same p where nothing is given: ``allowed`` is the largest of them.
            beyond = _combined(tests, left, given=chosen)[0] if chosen else p[left]
            if beyond.min() > allowed:
                break
            chosen.append(left.pop(int(beyond.argmin())))
        chosen.sort(key=lambda row: float(p[row]))
        found = (self._describe(row, float(p[row]), groups, values, tests) for row in chosen)
        return tuple(one for one in found if one.matters or one.text in kept)

    def known(self, outcomes: Outcomes) -> Outcomes:
        """Those of the classes that count, in images that the index has regions of."""
        rows = self._rows[outcomes.image_rows]
        indexed = (rows >= 0) & np.asarray(self._means.any(axis=1))[rows]
        return outcomes.take(self._known[outcomes.class_rows] & indexed)

    def vectors(self, group: Outcomes) -> npt.NDArray[np.float32]:
        """(M, D) unit vectors of places: of the region that fits best, and the whole image."""
        rows = self._rows[group.image_rows]
        height, width = self.index.sizes[rows].T.astype(np.float64).clip(min=1)
        shares = group.boxes / np.stack([width, height, width, height], axis=1)
        vectors = self.index.region_vectors(rows, shares).astype(np.float32)
        vectors += self._means[rows]
        return _unit(vectors)

    def _values(self, group: Outcomes) -> npt.NDArray[np.float32]:
        """(M, X) how much places answer each condition."""
        return self.vectors(group) @ self._directions.T

    def _object_values(
        self, objects: Outcomes, counted: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.float32]:
        """Those of the objects that count, which are the same in every round as a rule."""
        if self._kept is None or not np.array_equal(self._kept[0], counted):
            self._kept = counted, self._values(objects)
        return self._kept[1]

    def image_vectors(self) -> npt.NDArray[np.float32]:
        """(N, D) unit vectors of the images; zeros of one without regions in the index."""
        vectors = _unit(self._means[self._rows].astype(np.float32))
        vectors[self._rows < 0] = 0
        return vectors

    def directions(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """(K, D) what some of the conditions add to a vector."""
        return self._directions[[self.conditions.index(text) for text in texts]]

    @cached_property
    def _rows(self) -> npt.NDArray[np.int64]:
        return self.index.rows_of(self.images.ids)

    @cached_property
    def _means(self) -> npt.NDArray[np.float16]:
        return self.index.mean_vectors()

    @cached_property
    def _directions(self) -> npt.NDArray[np.float32]:
        """(X, D) differences of text vectors."""
        texts = [*map(context_phrases, self.conditions), PLAIN]
        vectors = embed_queries(self.encoder, texts, templates=["{}"])
        return np.asarray(vectors[:-1] - vectors[-1])

    def _describe(
        self,
        row: int,
        p: float,
        groups: Sequence[Outcomes],
        values: Sequence[npt.NDArray[np.float32]],
        tests: Sequence[FailureTest],
    ) -> Condition:
        seen: list[tuple[int, float, float]] = []
        for group, value, test in zip(groups, values, tests, strict=True):
            own = value[:, row]
            inside = own >= answer_threshold(own) if len(own) else np.zeros(0, bool)
            failed, expected = (
                float(shares[inside].mean()) if inside.any() else 0.0
                for shares in (group.failed, test.expected)
            )
            seen.append((int(inside.sum()), failed, expected))
        (num_objects, missed, missed_usually), (num_detections, false, false_usually) = seen
        return Condition(
            text=self.conditions[row],
            p=p,
            num_objects=num_objects,
            missed=missed,
            missed_usually=missed_usually,
            num_detections=num_detections,
            false=false,
            false_usually=false_usually,
        )


def _unit(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Scale to length 1, in place."""
    vectors /= np.sqrt(np.einsum("md,md->m", vectors, vectors))[:, None].clip(min=1e-12)
    return vectors


def _combined(
    tests: Sequence[FailureTest],
    columns: Sequence[int] | None = None,
    *,
    given: Sequence[int] = (),
) -> tuple[Floats, Floats]:
    """P-values and z of conditions, the surer of the tests, corrected for their number."""
    results = [test.association(columns, given=given) for test in tests]
    p = len(tests) * np.min([result.p for result in results], axis=0)
    return np.minimum(p, 1.0), np.max([result.z for result in results], axis=0)


def _row(conditions: Sequence[str], text: str) -> list[int]:
    """The row of a condition; none if it is not tried any more."""
    return [conditions.index(text)] if text in conditions else []

"""What a validation shows: which classes are weak, and which queries follow from that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Matches, load_detections, match_detections
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.metrics.names import match_names
from hardmine.mining.conditions import AUTO, Condition, ConditionFinder, vocabulary
from hardmine.mining.confusion import Pairs, measure_confusion
from hardmine.mining.contexts import ContextNeed, measure_contexts
from hardmine.mining.need import Need, NeedRules, class_need
from hardmine.mining.queries import Queries, build_queries
from hardmine.records import ImageSet, numbers, plain_values

Floats = npt.NDArray[np.float64]

_MIN_NEED = 1e-3  # less is rounding, not weakness

# Patience: of the rule that decides whether boosts help a class.
_MEMORY = 30  # validations that are remembered
_RECENT = 5  # validations that show a recovery
_STARTED = 0.005  # AP above which a class has begun to learn
_MIN_GAIN = 0.002  # AP a round: a trend below that is not worth a boost
_COMMON_WEIGHT = 5  # differences that the noise of all classes counts for
_MIN_FACTOR = 0.1  # keeps a weak class above what its frequency alone would give


@dataclass(frozen=True)
class ValidationSet:
    """The validation images that detections are measured on.

    Attributes:
        images: Images with labels.
        index: An index of them, made with the same encoder as the training index. Shows what
            images with missed objects look like, and which class is weak in which context; without
            it boxes show which classes are missed and which are confused.
        notes: How its classes differ from those mined for, one line each.
    """

    images: ImageSet
    index: Index | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.images, ImageSet):
            raise InputError(f"images must be of load_images, got {self.images!r:.200}")

    def with_names(self, class_names: Sequence[str]) -> ValidationSet:
        """Spell classes as the miner does, where case and separators alone differ.

        Rows and ids of classes stay, so detections mean the same. Classes that are not mined for
        keep their names.

        Args:
            class_names: C names of the miner.

        Raises:
            InputError: If the labels have classes, but none of these.
        """
        names = list(self.images.class_names)
        match = match_names(class_names, names)
        if names and (match.rows < 0).all():
            raise InputError(
                f"the validation images have none of the {len(class_names)} classes: theirs are "
                f"{', '.join(names[:3])} ..., the classes are {', '.join(class_names[:3])} ..."
            )
        for name, row in zip(class_names, match.rows.tolist(), strict=True):
            if row >= 0:
                names[row] = name
        notes = []
        if match.renamed:
            pairs = [f"{name!r} is {theirs!r}" for name, theirs in match.renamed]
            notes.append(f"the validation images spell classes otherwise: {_some(pairs)}")
        if match.missing:
            missing = [
                f"{name!r} (did you mean {similar!r}?)" if similar else repr(name)
                for name, similar in match.missing
            ]
            notes.append(
                f"the validation images lack {len(missing)} of {len(class_names)} classes, so "
                f"predicted boxes tell nothing of these: {_some(missing)}"
            )
        return replace(
            self, images=replace(self.images, class_names=tuple(names)), notes=tuple(notes)
        )


@dataclass(frozen=True)
class Patience:
    """What tells classes that boosts help from those that they do not.

    Attributes:
        ap: (R, C) AP of the last R validations, oldest first; NaN unknown.
        was_boosted: (R, C) bool, whether the class was boosted before that validation.
        boosted: (C,) bool, whether the last round boosted the class.
    """

    ap: Floats
    was_boosted: npt.NDArray[np.bool_]
    boosted: npt.NDArray[np.bool_]

    @classmethod
    def fresh(cls, num_classes: int) -> Patience:
        """Before the first validation."""
        nothing = np.zeros((0, num_classes))
        return cls(nothing, nothing.astype(bool), np.zeros(num_classes, bool))

    def after(self, ap: Floats) -> Patience:
        """The state after a validation with these APs: (C,), NaN unknown."""
        return Patience(
            np.vstack([self.ap, ap])[-_MEMORY:],
            np.vstack([self.was_boosted, self.boosted])[-_MEMORY:],
            self.boosted,
        )

    def factor(
        self, patience: int | None, num_instances: npt.NDArray[np.int64] | None = None
    ) -> Floats:
        """(C,) factors for need: 1, then halved in each round that boosts surely do not help in.

        Args:
            patience: Boosted rounds before a need may be reduced; None for never.
            num_instances: (C,) validation instances, if known.
        """
        factor = np.ones(self.ap.shape[1])
        if patience is None:
            return factor
        in_vain = np.ones(self.ap.shape[1], bool)
        # Rounds in a row up to the last one, until the factor is as small as it gets.
        for end in range(len(self.ap), 0, -1):
            in_vain &= _in_vain(self.ap[:end], self.was_boosted[:end], patience, num_instances)
            factor[in_vain] /= 2
            if not in_vain.any() or factor.max(where=in_vain, initial=0.0) < _MIN_FACTOR:
                break
        return np.maximum(factor, _MIN_FACTOR)

    def to_state(self) -> dict[str, list[Any]]:
        """Plain values; unknown is None."""
        return {
            "ap": plain_values(self.ap),
            "was_boosted": self.was_boosted.tolist(),
            "boosted": self.boosted.tolist(),
        }

    @classmethod
    def from_state(cls, state: dict[str, list[Any]]) -> Patience:
        """Read what ``to_state`` wrote."""
        boosted = np.array(state["boosted"], bool)
        shape = (len(state["ap"]), len(boosted))
        return cls(
            np.array([numbers(row) for row in state["ap"]], np.float64).reshape(shape),
            np.array(state["was_boosted"], bool).reshape(shape),
            boosted,
        )


def _in_vain(
    ap: Floats,
    was_boosted: npt.NDArray[np.bool_],
    patience: int,
    num_instances: npt.NDArray[np.int64] | None,
) -> npt.NDArray[np.bool_]:
    """(C,) classes whose AP surely rises by less than ``_MIN_GAIN`` a round although boosted.

    1. Only validations count since the class first had an AP above 0: before that it has not begun
       to learn. After a fall beyond noise only those that follow count.
    2. The trend is a straight line through them; its standard error follows from the noise.
    3. In vain: the trend plus two standard errors lies below the gain, and the last five
       validations do not rise beyond theirs.
    """
    counted = np.maximum.accumulate(np.nan_to_num(ap) > _STARTED, axis=0) & ~np.isnan(ap)
    noise = _noise(ap, counted, num_instances)
    before = np.full(ap.shape[1], np.nan)
    for row in range(len(ap)):
        fell = counted[row] & (before - ap[row] > 3 * np.sqrt(2) * noise) & (noise > 0)
        counted[:row, fell] = False
        before = np.where(counted[row], ap[row], before)
    trend, error = _trend(ap, counted)
    recent = counted & (np.arange(len(ap)) >= len(ap) - _RECENT)[:, None]
    recent_trend, recent_error = _trend(ap, recent)
    at_least = np.maximum(2 * noise * recent_error, _MIN_GAIN)
    rising = (recent.sum(axis=0) >= 3) & (recent_trend > at_least)
    enough = (counted.sum(axis=0) >= 4) & ((was_boosted & counted).sum(axis=0) >= patience)
    return np.asarray(enough & (trend + 2 * noise * error < _MIN_GAIN) & ~rising)


def _noise(
    ap: Floats, counted: npt.NDArray[np.bool_], num_instances: npt.NDArray[np.int64] | None
) -> Floats:
    """(C,) standard deviation of one AP, from how much successive ones differ.

    Medians, which a trend or a jump hardly moves. The noise of all classes counts as five
    differences of each class's own. One object more or less moves AP by 1 / instances.
    """
    differences = np.abs(np.diff(np.where(counted, ap, np.nan), axis=0))
    known = np.isfinite(differences)
    number = known.sum(axis=0)
    own = np.zeros(ap.shape[1])
    for row in np.flatnonzero(number):
        own[row] = np.median(differences[known[:, row], row])
    common = float(np.median(differences[known])) if known.any() else 0.0
    squares = (_COMMON_WEIGHT * common**2 + number * own**2) / (_COMMON_WEIGHT + number)
    # From the median difference of normal values to their standard deviation.
    noise: Floats = 1.4826 / np.sqrt(2) * np.sqrt(squares)
    return noise if num_instances is None else np.maximum(noise, 0.5 / num_instances.clip(min=1))


def _trend(ap: Floats, counted: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(C,) slopes a validation of least-squares lines, and their standard errors at noise 1."""
    number = np.maximum(counted.sum(axis=0), 1)
    rounds = np.arange(len(ap))[:, None]
    centred = np.where(counted, rounds - (rounds * counted).sum(axis=0) / number, 0.0)
    squares = (centred**2).sum(axis=0).clip(min=1e-12)
    slope = (centred * np.nan_to_num(ap)).sum(axis=0) / squares
    return slope, 1 / np.sqrt(squares)


@dataclass(frozen=True)
class Assessment:
    """What one validation shows.

    Attributes:
        need: How weak each of C classes is.
        patience: Updated by this validation, but not yet by which classes are boosted.
        patience_factor: (C,) in [0, 1], the share of its need that patience leaves each class.
        class_need: (C,) in [0, 1], need × patience factor; 0 where that is negligible.
        queries: What to search for.
        mistaken_for: Which classes the detector takes for which; empty where that is not measured.
        context_thresholds: For each context that was measured, the similarity from which an image
            answers it.
        conditions: Those that were found; they are the contexts, if none was named.
        matches: Of the detections with the labels; None without detections.
        notes: How names of classes differ in the metrics and the validation images, one line each.
    """

    need: Need
    patience: Patience
    patience_factor: Floats
    class_need: Floats
    queries: Queries
    mistaken_for: Pairs
    context_thresholds: Mapping[str, float]
    conditions: tuple[Condition, ...] = ()
    matches: Matches | None = None
    notes: tuple[str, ...] = ()


def assess(
    metrics: Any,
    val_detections: Any,
    *,
    class_names: tuple[str, ...],
    previous: Need | None,
    patience: Patience,
    rules: NeedRules,
    contexts: Sequence[str],
    validation: ValidationSet | None,
    encoder: Encoder,
    synonyms: Sequence[Sequence[str]] = (),
    finder: ConditionFinder | None = None,
    found_before: Sequence[str] = (),
) -> Assessment:
    """Find the weak classes of a validation and build the queries for them.

    Args:
        metrics: Per-class validation scores, in any form that ``read_scores`` reads.
        val_detections: What the detector found on the validation images; None if unknown.
        class_names: C names.
        previous: The need of the round before; None in the first.
        patience: What the rounds before tell of whether boosts help.
        rules: Which classes count as weak.
        contexts: Contexts that every weak class is combined with.
        validation: The validation images; None where nothing is measured on them.
        encoder: The one that made the index.
        synonyms: For each class its other names; empty for none.
        finder: Finds the contexts instead; None if they are named.
        found_before: Conditions that the round before found.
    """
    if val_detections is not None and validation is None:
        raise InputError(
            "val_detections were given, but not the images they belong to: "
            "make the miner with validation=ValidationSet(images, index)"
        )
    # 1. Need, reduced where boosts did not help.
    need = class_need(metrics, class_names, rules=rules, previous=previous)
    patience = patience.after(need.ap)
    factor = patience.factor(rules.patience, need.num_instances)
    reduced = need.need * factor
    reduced[reduced < _MIN_NEED] = 0
    # 2. What the detections on the validation images add.
    mistaken_for: Pairs = ()
    in_context = ContextNeed()
    conditions: tuple[Condition, ...] = ()
    matches = None
    if val_detections is not None and validation is not None:
        found = load_detections(val_detections, validation.images)
        mistaken_for = measure_confusion(validation.images, found, class_names)
        matches = match_detections(validation.images, found)
        if validation.index is not None:
            if finder is not None:
                conditions = finder.find(matches, kept=found_before)
                contexts = [condition.text for condition in conditions]
            if contexts:
                in_context = _of_classes(
                    measure_contexts(
                        validation.images, matches, validation.index, contexts, encoder
                    ),
                    class_names,
                )
    # 3. Queries.
    queries = build_queries(
        class_names,
        reduced,
        synonyms=synonyms,
        contexts=contexts,
        context_need={
            (name, context): value * factor[class_names.index(name)]
            for (name, context), value in in_context.need.items()
        },
        sizes=None if need.by_size is None else need.by_size * factor[:, None],
    )
    return Assessment(
        need,
        patience,
        factor,
        reduced,
        queries,
        mistaken_for,
        in_context.thresholds,
        conditions,
        matches,
        (*need.unmatched, *(() if validation is None else validation.notes)),
    )


def make_finder(
    contexts: Sequence[str],
    validation: ValidationSet | None,
    encoder: Encoder,
    class_names: Sequence[str],
) -> ConditionFinder | None:
    """Make what finds contexts by itself; None if they are named.

    Raises:
        InputError: If there are no indexed validation images to find them on.
    """
    if AUTO not in contexts:
        return None
    if validation is None or validation.index is None:
        raise InputError(
            f"contexts={AUTO!r} finds contexts on the validation images: make the miner with "
            "validation=ValidationSet(images, index), or name the contexts"
        )
    return ConditionFinder(
        validation.images,
        validation.index,
        encoder,
        class_names=class_names,
        conditions=vocabulary(text for text in contexts if text != AUTO),
    )


def _some(texts: Sequence[str]) -> str:
    return ", ".join(texts[:3]) + (", ..." if len(texts) > 3 else "")


def _of_classes(measured: ContextNeed, class_names: tuple[str, ...]) -> ContextNeed:
    """Leave out classes of the validation set that are not mined for."""
    known = {pair: need for pair, need in measured.need.items() if pair[0] in class_names}
    return replace(measured, need=known)

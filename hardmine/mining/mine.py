"""The middle of a round, a pure function: scores, trust, targets, balance, weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import scipy.sparse

from hardmine.detections import Matches
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError
from hardmine.index.base import Index
from hardmine.mining.assess import ValidationSet
from hardmine.mining.balance import (
    alike_factors,
    balance_factors,
    class_aware,
    class_balance,
    class_ratios,
)
from hardmine.mining.checked import CheckedLabels
from hardmine.mining.confusion import Pairs
from hardmine.mining.contexts import PLAIN, context_phrases
from hardmine.mining.density_ratio import (
    DensityRatio,
    count_objects,
    fit_density_ratio,
    sample_rows,
)
from hardmine.mining.evidence import EvidenceCache
from hardmine.mining.labels import Labels, read_labels
from hardmine.mining.order import require_order
from hardmine.mining.queries import Queries, name_phrases
from hardmine.mining.scores import ScoreCache, mean_vectors_of
from hardmine.mining.targets import TargetRules, Targets, split_targets
from hardmine.mining.trust import Trust, measure_trust
from hardmine.mining.weights import WeightRules, image_weights, named_rules
from hardmine.records import ImageSet

Floats = npt.NDArray[np.float64]

# Images whose density ratio is taken at a time: float64 vectors of 512 are 128 MB.
_IMAGES = 1 << 15


@dataclass(frozen=True)
class MiningData:
    """Index, labels and training loop, matched by image id; the same in every round.

    Attributes:
        ids: (N,) image ids in the order of the sampler's rows.
        class_names: C names.
        synonyms: For each class its other names; empty for none.
        labels: Presence of the classes in the images.
        scores: Similarity of texts to the images.
        class_phrases: For each class the phrases of its name.
        evidence: Of queries, gathered once.
    """

    ids: npt.NDArray[np.generic]
    class_names: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]
    labels: Labels
    scores: ScoreCache
    class_phrases: tuple[tuple[str, ...], ...]
    evidence: EvidenceCache

    def __len__(self) -> int:
        return len(self.ids)


def match_data(
    index: Index | None,
    encoder: Encoder | None,
    images: ImageSet | None,
    *,
    ids: npt.ArrayLike | None = None,
    class_names: Sequence[str],
    templates: str | Sequence[str] = "short",
    num_rows: int | None = None,
    dataset: Any = None,
) -> MiningData:
    """Match index, labels and training loop by image id.

    Args:
        index: Regions of the images.
        encoder: The one that made the index.
        images: The labels; None if all images are an unlabelled pool.
        ids: (N,) image ids in the order of the sampler's rows; those of ``images`` if None, else
            those of the index.
        class_names: C names.
        templates: Put around each phrase.
        num_rows: Rows of the sampler, to check the ids against; None for no check.
        dataset: What the sampler draws from, whose order is checked where it tells it; None for no
            check.
    """
    if index is None or encoder is None:
        raise InputError("rank 0 mines and needs index and encoder; only other ranks may pass None")
    for name, given in (("index", index), ("encoder", encoder)):
        if isinstance(given, str | PathLike):
            raise InputError(f"{name} is {given!r}: open it first, by open_index or load_encoder")
    if ids is None:
        if dataset is not None and images is not None:
            require_order(dataset, images)
        ids = (index if images is None else images).ids
    image_ids, names = np.asarray(ids), tuple(class_names)
    if num_rows is not None and num_rows != len(image_ids):
        raise InputError(
            f"the sampler draws from {num_rows} images, the labels (or the index) have "
            f"{len(image_ids)}; pass dataset_ids=, the image id of each of the sampler's rows"
        )
    same_classes = images is not None and images.class_names == names
    synonyms = images.class_synonyms if images is not None and same_classes else ()
    labels = read_labels(images, image_ids, names)
    scores = ScoreCache(index, encoder, image_ids, num_classes=len(names), templates=templates)
    class_phrases = tuple(
        name_phrases(name, synonyms[row] if synonyms else ()) for row, name in enumerate(names)
    )
    return MiningData(
        ids=image_ids,
        class_names=names,
        synonyms=synonyms,
        labels=labels,
        scores=scores,
        class_phrases=class_phrases,
        evidence=EvidenceCache(scores, labels, class_phrases),
    )


@dataclass(frozen=True)
class Ratios:
    """How many times as often validation misses objects as training shows them.

    Attributes:
        classes: Of each of C classes; None if that is not known.
        density: By what images look like; None if that is not known.
    """

    classes: tuple[float, ...] | None = None
    density: DensityRatio | None = None


def find_ratios(
    data: MiningData,
    validation: ValidationSet | None,
    matches: Matches | None,
    rules: WeightRules | None = None,
) -> Ratios:
    """Compare what the detector misses on validation images with what training shows.

    For the look of images, training is taken as it is drawn when classes are balanced, if they are:
    rare classes may stand where what is missed does not, and then it is shown even less.

    Args:
        data: Index and labels of the training images.
        validation: Validation images with labels, and an index if their look is to count.
        matches: Of the detector on them; None if that is not known.
        rules: Say how classes are balanced; those of a training loop by default.
    """
    if matches is None or validation is None:
        return Ratios()
    images, index = validation.images, validation.index
    missed, labelled = count_objects(images, matches, data.class_names)
    objects = data.labels.objects()
    classes = class_ratios(_sums(missed, 0), _sums(labelled, 0), _sums(objects, 0))
    known = tuple(classes.tolist())
    if index is None:
        return Ratios(known)
    shown = _sums(objects, 1)
    how = "missed" if rules is None else rules.classes
    if how == "alike":
        shown = shown * class_aware(objects)
    elif how == "missed":
        shown = shown * class_balance(data.labels, classes)
    rows = sample_rows(len(data))
    density = fit_density_ratio(
        _sums(missed, 1),
        mean_vectors_of(index, index.rows_of(images.ids)),
        shown[rows],
        data.scores.mean_vectors(rows),
    )
    return Ratios(known, density)


def _sums(counts: scipy.sparse.spmatrix, axis: int) -> npt.NDArray[Any]:
    return np.asarray(counts.sum(axis=axis)).ravel()


@dataclass(frozen=True)
class RoundInputs:
    """All that a round's weights depend on, besides the data.

    The record of a round holds it, so that the round can be replayed to the bit.

    Attributes:
        ap: (C,) as validation measured it; NaN is unknown.
        need: (C,) in [0, 1], how weak each class is, after patience.
        queries: Q text queries.
        mistaken_for: Which classes the detector takes for which, and how often.
        context_thresholds: For each measured context, the similarity from which an image answers.
        ratios: How many times as often validation misses objects as training shows them.
        checked: What people found when they checked images.
        targets: How targets are split.
        weights: How weights are limited, now that the training is as far as it is; None if a policy
            of one's own makes them.
        policy: Name of that policy; empty for hardmine's own weights.
        num_images: N.
        encoder: Its fingerprint.
        clusters: How the index was clustered.
    """

    ap: Floats
    need: Floats
    queries: Queries
    mistaken_for: Pairs = ()
    context_thresholds: Mapping[str, float] = field(default_factory=dict)
    ratios: Ratios = field(default_factory=Ratios)
    checked: CheckedLabels = field(default_factory=CheckedLabels)
    targets: TargetRules = field(default_factory=TargetRules)
    weights: WeightRules | None = field(default_factory=WeightRules)
    policy: str = ""
    num_images: int = 0
    encoder: str = ""
    clusters: str = ""

    @property
    def notes(self) -> tuple[str, ...]:
        """What people should know of the draws to come."""
        look_alone = self.weights is not None and self.weights.look_alone
        if not look_alone or self.ratios.density is not None:
            return ()
        return (
            "all images are drawn equally often: the weights follow the look of images on which "
            "objects are missed, and this validation came without predicted boxes or missed none",
        )


# A policy of one's own: the round's inputs and the data -> (N,) weights.
WeightPolicy: TypeAlias = Callable[[RoundInputs, MiningData], Floats]


@dataclass(frozen=True)
class MiningResult:
    """What a round's queries led to.

    Attributes:
        trust: In each of Q queries.
        targets: The images that the queries found.
        balance: (N,) factors, how often each image would be drawn if no class were weak.
        density_ratio: (N,) how many times as often validation misses objects in images like each
            one as training shows them; 1 if that was not measured.
        weights: (N,) the sampling weights.
    """

    trust: Trust
    targets: Targets
    balance: Floats
    density_ratio: Floats
    weights: Floats


def mine(
    inputs: RoundInputs, data: MiningData, *, policy: WeightPolicy | None = None
) -> MiningResult:
    """Turn queries into weights.

    Args:
        inputs: Queries and rules.
        data: Index and labels.
        policy: Makes the weights in place of balance and boosts.
    """
    queries, rules = inputs.queries, inputs.targets
    # 1. Scores, held against the labels: which images count for each query?
    evidence = data.evidence.of(
        queries, missing=rules.missing, pool_share=rules.pool_share, checked=inputs.checked
    )
    answering = _answering_images(data.scores, inputs.context_thresholds)
    # 2. Trust: are a query's best hits right?
    trust = measure_trust(evidence)
    # 3. Targets: what is each image to each query?
    targets = split_targets(
        evidence,
        queries.class_rows,
        data.labels,
        trust,
        contexts=queries.contexts,
        answering=answering,
    )
    if policy is not None:
        weights = _checked(policy(inputs, data), inputs.policy, len(data))
        ones = np.ones(len(data))
        return MiningResult(trust, targets, ones, ones, weights)
    # 4. Balance and weights.
    limits = inputs.weights or WeightRules()
    density_ratio = np.ones(len(data))
    if limits.balance > 0 and inputs.ratios.density is not None:
        density_ratio = _density_ratio(inputs.ratios.density, data)
    balance = _balance(inputs, limits, targets, data.labels, density_ratio)
    weights = image_weights(
        targets,
        queries.need,
        num_images=len(data),
        class_rows=queries.class_rows,
        balance=balance,
        rules=limits,
    )
    return MiningResult(trust, targets, balance, density_ratio, weights)


def _balance(
    inputs: RoundInputs, limits: WeightRules, targets: Targets, labels: Labels, density: Floats
) -> Floats:
    """(N,) factors, how often each image would be drawn if no class were weak."""
    if limits.classes == "alike":
        return alike_factors(inputs.queries, targets, labels) * density**limits.balance
    if limits.classes == "unchanged":
        return np.asarray(density**limits.balance)
    if limits.balance == 0:
        return np.ones(len(labels))
    classes = inputs.ratios.classes
    balance = balance_factors(
        inputs.queries,
        targets,
        labels,
        ratios=None if classes is None else np.array(classes),
        mistaken_for=[
            (row, other, inputs.targets.mistaken * share)
            for row, other, share in inputs.mistaken_for
        ],
    )
    return np.asarray((balance * density) ** limits.balance)


def rules_or_policy(
    weights: WeightRules | WeightPolicy | str | None,
) -> tuple[WeightRules | None, WeightPolicy | None]:
    """Tell rules, or their name, from a policy of one's own; None is the default rules."""
    if isinstance(weights, str):
        return named_rules(weights), None
    if weights is None or isinstance(weights, WeightRules):
        return weights or WeightRules(), None
    if not callable(weights):
        raise InputError(
            "weights must be WeightRules, the name of some, or a function of (RoundInputs, "
            f"MiningData), got {weights!r}"
        )
    return None, weights


def policy_name(policy: WeightPolicy) -> str:
    """The name of a policy of one's own, for the record."""
    return getattr(policy, "__name__", type(policy).__name__)


def _density_ratio(ratio: DensityRatio, data: MiningData) -> Floats:
    """(N,) of each training image."""
    parts = np.split(np.arange(len(data)), range(_IMAGES, len(data), _IMAGES))
    return np.concatenate([ratio.of(data.scores.mean_vectors(part)) for part in parts])


def _answering_images(
    scores: ScoreCache, thresholds: Mapping[str, float]
) -> dict[str, npt.NDArray[np.bool_]]:
    """(N,) which images answer each measured context."""
    if not thresholds:
        return {}
    texts = [PLAIN, *map(context_phrases, thresholds)]
    plain, *similar = scores.rows(texts, bare=True)
    with np.errstate(invalid="ignore"):  # an image that is not in the index answers nothing
        return {
            context: row - plain >= threshold
            for (context, threshold), row in zip(thresholds.items(), similar, strict=True)
        }


def _checked(weights: npt.ArrayLike, name: str, num_images: int) -> Floats:
    checked = np.array(weights, np.float64)
    valid = checked.shape == (num_images,) and np.isfinite(checked).all() and (checked >= 0).all()
    if not valid or not checked.any():
        raise InputError(
            f"the weight policy {name} must return {num_images} finite weights, none negative and "
            f"not all 0; got shape {checked.shape}, from {checked.min(initial=0.0)} to "
            f"{checked.max(initial=0.0)}"
        )
    return checked

"""Scenarios and their splits: which photos are train, val and test, and which labels are gone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hardmine.records import ImageSet

Rows = npt.NDArray[np.int64]
TRAIN, VAL, TEST = 2800, 1000, 1500
CHOOSING, REPORTING = range(5), range(5, 10)  # split seeds

# Name of a condition -> the attribute that tells it, and its value.
CONDITIONS: dict[str, tuple[str, str]] = {
    "night": ("timeofday", "night"),
    "rain": ("weather", "rainy"),
    "snow": ("weather", "snowy"),
}


@dataclass(frozen=True)
class RoadScenario:
    """What is weak.

    Attributes:
        about: For people.
        condition: Rare in training, natural in val and test; a key of ``CONDITIONS`` or None.
        train_share: Share of the training photos that show the condition.
        num_train: Training photos.
        few_labels: Whether the strategies know no label of half of the training photos, and a third
            of the boxes of the others have no label at all.
    """

    about: str
    condition: str | None = None
    train_share: float = 0.0
    num_train: int = TRAIN
    few_labels: bool = False


SCENARIOS: dict[str, RoadScenario] = {
    "as-it-comes": RoadScenario("39 % night, and classes with a tail of 220 : 1"),
    "night-is-coming": RoadScenario(
        "4 % night in training, 39 % in val and test", "night", 0.04, 2300
    ),
    "rain-is-coming": RoadScenario("1 % rain in training, 7 % in val and test", "rain", 0.01),
    "snow-is-coming": RoadScenario("1 % snow in training, 8 % in val and test", "snow", 0.01),
    "few-labels": RoadScenario(
        "the labels of half of the training photos are unknown to the strategies, and a third of "
        "the boxes of the other half have no label",
        few_labels=True,
    ),
    "few-photos": RoadScenario("few training photos", num_train=600),
}


@dataclass(frozen=True)
class Split:
    """Rows of all photos, ascending.

    Attributes:
        train: The detector learns from these.
        val: Strategies may be validated on these.
        test: Used once, at the end.
        known: (train,) bool, whether the strategies know the labels of each training photo. The
            detector learns from all labels, as if a pool were labelled when it is drawn.
        label_seed: Of the boxes that lose their label; None for none.
    """

    train: Rows
    val: Rows
    test: Rows
    known: npt.NDArray[np.bool_]
    label_seed: int | None = None


def make_split(
    scenario: RoadScenario,
    seed: int,
    attributes: Mapping[str, npt.NDArray[np.str_]],
    *,
    num_train: int | None = None,
) -> Split:
    """Split the photos at random.

    Val and test depend on the seed alone, so that scenarios are tested on the same photos.

    Args:
        scenario: What is weak.
        seed: Of the split.
        attributes: (N,) values of each attribute.
        num_train: Training photos; those of the scenario if None.
    """
    num_train = num_train or scenario.num_train
    num_photos = len(next(iter(attributes.values())))
    order = np.random.default_rng([seed, 53]).permutation(num_photos)
    test, val, rest = np.split(order, [TEST, TEST + VAL])
    if scenario.condition is not None:
        weak = condition_rows(scenario.condition, attributes)[rest]
        num_weak = round(scenario.train_share * num_train)
        assert len(rest[weak]) >= num_weak
        assert len(rest[~weak]) >= num_train - num_weak
        chosen = np.concatenate([rest[weak][:num_weak], rest[~weak][: num_train - num_weak]])
    else:
        chosen = rest[:num_train]
    known = np.ones(len(chosen), bool)
    if scenario.few_labels:
        known = np.random.default_rng([seed, 61]).permutation(len(chosen)) < len(chosen) // 2
    return Split(
        *(np.sort(rows) for rows in (chosen, val, test)),
        known=known,
        label_seed=seed if scenario.few_labels else None,
    )


def condition_rows(
    condition: str, attributes: Mapping[str, npt.NDArray[np.str_]]
) -> npt.NDArray[np.bool_]:
    """(N,) whether each photo shows a condition of ``CONDITIONS``."""
    attribute, value = CONDITIONS[condition]
    return np.asarray(attributes[attribute] == value)


def training_labels(images: ImageSet, split: Split) -> ImageSet:
    """The training photos with the labels that the detector learns from."""
    train = images.subset(split.train)
    if split.label_seed is None:
        return train
    instances = train.instances
    assert instances is not None
    chances = np.random.default_rng([split.label_seed, 59]).random(len(instances))
    kept = ~split.known[instances.image_rows] | (chances >= 1 / 3)
    return replace(train, instances=instances.take(kept))

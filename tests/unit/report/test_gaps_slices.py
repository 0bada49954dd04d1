"""Slices by text: planted gaps are found, and chance is not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from hardmine.detections import Detections, Matches, match_detections, measure_mean_gap
from hardmine.index import index_from_regions
from hardmine.index.base import Index
from hardmine.records import ImageSet, Instances
from hardmine.report.make import make_report
from hardmine.report.text_slices import (
    UNNAMED,
    named_classes,
    suggest_slices,
    text_slices,
    with_shares,
    worst_contexts,
)

NUM = 300
DARK = np.arange(NUM) % 5 == 0  # a fifth of the images


class Words:
    """A text encoder: "night" and "snow" are axes."""

    dim = 4
    fingerprint = "words"

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(T, 4): night, snow, or anything else."""
        places = [0 if "night" in text else 1 if "snow" in text else 3 for text in texts]
        return torch.eye(4)[places]


@pytest.fixture(scope="module")
def images() -> ImageSet:
    """An object of two classes in each image."""
    rows = np.repeat(np.arange(NUM, dtype=np.int32), 2)
    boxes = np.tile(np.array([[0, 0, 40, 40], [50, 50, 90, 90]], np.float32), (NUM, 1))
    return ImageSet(
        Path(),
        np.arange(NUM) + 1,
        tuple(f"{row}.jpg" for row in range(NUM)),
        np.full((NUM, 2), 100, np.int32),
        ("car", "traffic light"),
        np.array([1, 2]),
        Instances(
            rows,
            np.tile(np.array([0, 1], np.int32), NUM),
            boxes,
            np.full(2 * NUM, 1600, np.float32),
            np.zeros(2 * NUM, bool),
            np.arange(2 * NUM),
        ),
    )


@pytest.fixture(scope="module")
def matches(images: ImageSet) -> Matches:
    """A detector that finds four of five objects, in the dark two of five."""
    rng = np.random.default_rng(0)
    assert images.instances is not None
    rows, classes = images.instances.image_rows, images.instances.class_rows
    detected = rng.random(2 * NUM) < np.where(DARK[rows], 0.4, 0.8)
    return match_detections(
        images,
        Detections(
            rows[detected].astype(np.int64),
            classes[detected].astype(np.int64),
            images.instances.boxes[detected].astype(np.float64),
            rng.random(int(detected.sum())),
        ),
    )


@pytest.fixture(scope="module")
def index(images: ImageSet) -> Index:
    """The first axis is how dark an image is, the others are random."""
    rng = np.random.default_rng(1)
    vectors = rng.normal(0, 0.1, (NUM, 4)).astype(np.float32)
    vectors[:, 0] += DARK
    vectors[:, 2] += 1
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return index_from_regions(vectors, np.arange(NUM + 1), ids=images.ids)


def recall(matches: Matches, inside: np.ndarray) -> float:
    """Share of the cars in some images that are found: AP without wrong detections."""
    cars = matches.detections.class_rows == 0
    found = cars & inside[matches.detections.image_rows]
    return float(found.sum() / matches.count_objects(inside)[0])


def test_a_planted_gap(images: ImageSet, matches: Matches, index: Index) -> None:
    night, snow = text_slices(["at night", "in snow"], images, matches, index, Words())
    assert night.num_images == DARK.sum()
    assert set(night.images) <= set(images.ids[DARK].tolist())
    assert night.classes == ("car", "traffic light")
    # Without wrong detections AP is recall: 0.4 against 0.8.
    assert night.gap == pytest.approx(0.4, abs=0.1)
    assert night.low > 0.2
    assert night.significant
    assert snow.low < 0 < snow.high
    assert not snow.significant


def test_a_text_that_names_a_class_is_about_that_class(
    images: ImageSet, matches: Matches, index: Index
) -> None:
    (one,) = text_slices(["traffic lights at night"], images, matches, index, Words())
    assert one.classes == ("traffic light",)


def test_suggestions_are_the_conditions_in_which_the_detector_fails(
    images: ImageSet, matches: Matches, index: Index
) -> None:
    conditions = ["in snow", "at night", "in the rain"]
    (one,) = suggest_slices(images, matches, index, Words(), conditions=conditions)
    assert (one.text, one.suggested) == ("at night", True)
    assert one.gap == pytest.approx(0.4, abs=0.1)
    assert "objects missed, usually" in one.failures
    # Objects fail there for sure, but the interval of AP decides what is said of AP.
    assert one.significant
    assert not replace(one, low=-0.1).significant
    dark = set(images.ids[DARK].astype(str))
    assert set(one.opposite) <= set(index.paths) - dark


def test_how_often_training_and_validation_show_a_slice(
    images: ImageSet, matches: Matches, index: Index
) -> None:
    """Training lacks nine of ten dark images."""
    dark = np.flatnonzero(DARK)
    kept = np.setdiff1d(np.arange(NUM), dark[: round(0.9 * len(dark))])
    slices = text_slices(["at night"], images, matches, index, Words())
    assert not slices[0].shown
    unnamed = replace(slices[0], text=UNNAMED)
    night, other = with_shares(
        [*slices, unnamed], Words(), val=(images, index), train=(images.subset(kept), index)
    )
    assert night.val_share == pytest.approx(DARK.mean())
    assert night.train_share == pytest.approx(DARK[kept].mean())
    assert night.seldom
    assert other == unnamed


def test_the_worst_context_of_each_class(images: ImageSet, matches: Matches, index: Index) -> None:
    texts = ["in snow", "at night", "car at night"]
    slices = text_slices(texts, images, matches, index, Words())
    worst = worst_contexts(slices, images, matches, index, Words())
    assert {name: one.context for name, one in worst.items()} == {
        "car": "at night",
        "traffic light": "at night",
    }


def test_a_suggested_context_is_measured_by_what_it_adds_to_a_photo(
    images: ImageSet, matches: Matches
) -> None:
    """Half of the images look much like any photo, and so like any text that begins with it."""
    rng = np.random.default_rng(4)
    plain = 0.5 * (rng.random(NUM) < 0.5)
    night, snow = 0.3 * DARK + plain, rng.normal(0, 0.1, NUM)
    rest = np.sqrt(2 - night**2 - snow**2 - plain**2)
    vectors = np.stack([night, snow, rest, plain], axis=1) / np.sqrt(2)
    index = index_from_regions(vectors.astype(np.float32), np.arange(NUM + 1), ids=images.ids)
    (given,) = text_slices(["at night"], images, matches, index, Words())
    worst = worst_contexts([replace(given, suggested=True)], images, matches, index, Words())
    assert worst["car"].ap_inside == pytest.approx(recall(matches, DARK), abs=0.011)
    assert worst["car"].ap_outside == pytest.approx(recall(matches, ~DARK), abs=0.011)
    # The text alone is more similar to plain photos than to dark ones.
    assert "car" not in worst_contexts([given], images, matches, index, Words())


def test_a_hard_context_reaches_the_sentence(
    images: ImageSet, matches: Matches, index: Index
) -> None:
    report = make_report(
        title="",
        detections=matches.detections,
        val=images,
        val_index=index,
        encoder=Words(),
        slices=["at night"],
    )
    (weak,) = report.weak
    assert "contexts" in weak.kinds
    assert "Hard at night" in weak.sentence


def test_a_random_split_is_rarely_significant(matches: Matches) -> None:
    """Random parts of the light images: p is uniform, and the interval covers 0."""
    rng = np.random.default_rng(2)
    light = np.flatnonzero(~DARK)
    found = []
    for _ in range(100):
        inside = np.zeros(NUM, bool)
        inside[rng.choice(light, 60, replace=False)] = True
        outside = ~inside & ~DARK
        found.append(measure_mean_gap(matches, inside, outside, draws=100, rng=rng))
    covered = np.mean([one.low <= 0 <= one.high for one in found])
    assert 0.8 <= covered <= 1.0
    assert np.mean([one.p < 0.05 for one in found]) <= 0.12
    assert 0.3 < np.mean([one.p for one in found]) < 0.7


def test_too_few_objects_give_an_unknown_gap(matches: Matches) -> None:
    inside = np.zeros(NUM, bool)
    inside[:3] = True
    one = measure_mean_gap(matches, inside, ~inside, draws=50, rng=np.random.default_rng(0))
    assert one.class_rows == ()
    assert np.isnan([one.gap, one.low, one.p]).all()


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("at night", []),
        ("a person at night", [0]),
        ("cars and buses", [1, 2]),
        ("a traffic light", [3]),
        ("scar tissue", []),
    ],
)
def test_named_classes(text: str, rows: list[int]) -> None:
    names = ["person", "car", "bus", "traffic_light", "light"]
    assert named_classes(text, names).tolist() == rows

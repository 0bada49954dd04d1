"""Conditions that nobody named: found where the detector fails, and nowhere else."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from hardmine.detections import Detections, Matches, match_detections
from hardmine.errors import InputError
from hardmine.index import index_from_regions
from hardmine.mining.assess import ValidationSet, make_finder
from hardmine.mining.conditions import Condition, ConditionFinder, read_contexts, vocabulary
from hardmine.mining.contexts import measure_contexts
from hardmine.mining.unnamed import find_unnamed
from hardmine.records import ImageSet, Instances

NUM, EACH, DIM = 300, 6, 24
WORDS = ("at night", "in the dark", "in the rain", *(f"in place {row}" for row in range(20)))


class Axes:
    """A text encoder: "dark" and "night" nearly are one axis, every other word its own."""

    dim = DIM
    fingerprint = "axes"

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(T, DIM) unit vectors."""
        rows = []
        for text in texts:
            seed = torch.Generator().manual_seed(zlib.crc32(text.encode()))
            row = torch.nn.functional.normalize(torch.randn(DIM, generator=seed), dim=0)
            if "night" in text or "dark" in text:
                row = torch.eye(DIM)[0] + 0.3 * row
            rows.append(torch.nn.functional.normalize(row, dim=0))
        return torch.stack(rows)


def validation_set() -> tuple[ImageSet, np.ndarray, np.ndarray]:
    """Images with objects in their left and right halves, and which halves are dark."""
    rng = np.random.default_rng(0)
    image_rows = np.repeat(np.arange(NUM, dtype=np.int32), EACH)
    right = np.tile(np.arange(EACH) % 2, NUM)
    corner = np.stack([50 * right + rng.uniform(0, 20, NUM * EACH), np.full(NUM * EACH, 10)], 1)
    boxes = np.concatenate([corner, corner + rng.uniform(8, 28, (NUM * EACH, 1))], 1)
    images = ImageSet(
        Path(),
        np.arange(NUM),
        tuple(f"{row}.jpg" for row in range(NUM)),
        np.full((NUM, 2), 100, np.int32),
        ("car", "bus"),
        np.arange(2),
        Instances(
            image_rows,
            rng.integers(0, 2, NUM * EACH).astype(np.int32),
            boxes.astype(np.float32),
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float32),
            np.zeros(NUM * EACH, bool),
            np.arange(NUM * EACH),
        ),
    )
    dark = rng.random((NUM, 2)) < 0.3
    return images, dark, right


@pytest.fixture(scope="module")
def setup() -> tuple[ImageSet, ConditionFinder, np.ndarray]:
    """Images, a finder on their halves, and (objects,) which lie in a dark half."""
    images, dark, right = validation_set()
    rng = np.random.default_rng(1)
    vectors = rng.normal(0, 0.25, (2 * NUM, DIM))
    vectors[:, 1] += 1
    vectors[:, 0] += dark.ravel()
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    halves = np.tile([[0, 0, 0.5, 1], [0.5, 0, 1, 1]], (NUM, 1))
    index = index_from_regions(
        vectors,
        np.arange(NUM + 1) * 2,
        halves,
        ids=images.ids,
        sizes=images.sizes,
        clusters="halves",
    )
    finder = ConditionFinder(
        images, index, Axes(), class_names=images.class_names, conditions=WORDS
    )
    assert images.instances is not None
    return images, finder, dark[images.instances.image_rows, right]


def detect(
    images: ImageSet,
    chance: np.ndarray,
    *,
    false: np.ndarray | None = None,
    seed: int = 2,
    max_area: float = np.inf,
) -> Matches:
    """A detector that finds each object with a chance, and is wrong beside some."""
    rng = np.random.default_rng(seed)
    labels = images.instances
    assert labels is not None
    found = np.flatnonzero(rng.random(len(labels)) < chance)
    wrong = np.flatnonzero(rng.random(len(labels)) < (0.1 if false is None else false))
    shifted = labels.boxes[wrong] + np.float32([0, 60, 0, 60])
    return match_detections(
        images,
        Detections(
            labels.image_rows[np.append(found, wrong)].astype(np.int64),
            labels.class_rows[np.append(found, wrong)].astype(np.int64),
            np.concatenate([labels.boxes[found], shifted]).astype(np.float64),
            rng.uniform(0.5, 1, len(found) + len(wrong)),
        ),
        iou_thresholds=[0.5],
        area_range=(0, max_area),
    )


def test_what_is_missed_in_the_dark_is_found_once(setup) -> None:
    images, finder, dark = setup
    (found,) = finder.find(detect(images, np.where(dark, 0.4, 0.8)))
    assert found.text in ("at night", "in the dark")
    assert found.p < 1e-6
    assert found.missed == pytest.approx(0.6, abs=0.1)
    # 30 % of the objects are dark: 0.3 × 0.6 + 0.7 × 0.2.
    assert found.missed_usually == pytest.approx(0.32, abs=0.05)
    assert found.num_objects == pytest.approx(dark.sum(), rel=0.15)
    assert f"{found.num_objects} objects missed" in str(found)


def test_what_is_falsely_found_in_the_dark_is_found(setup) -> None:
    images, finder, dark = setup
    (found,) = finder.find(detect(images, np.full(len(dark), 0.8), false=0.05 + 0.4 * dark))
    assert found.text in ("at night", "in the dark")
    assert found.false > found.false_usually + 0.1


def test_nothing_is_found_where_failures_have_no_condition(setup) -> None:
    images, finder, dark = setup
    runs = [detect(images, np.full(len(dark), 0.6), seed=seed) for seed in range(20)]
    assert sum(bool(finder.find(matches)) for matches in runs) <= 3  # 1 expected
    unnamed = [find_unnamed(finder, matches, ()) for matches in runs]
    assert sum(found is not None for found in unnamed) <= 1  # 0.02 expected


def without_words(finder: ConditionFinder, *words: str) -> ConditionFinder:
    """The same finder that does not know some words."""
    conditions = [text for text in WORDS if text not in words]
    return ConditionFinder(
        finder.images,
        finder.index,
        Axes(),
        class_names=finder.images.class_names,
        conditions=conditions,
    )


def test_what_no_word_names_is_found_in_the_embedding(setup) -> None:
    images, finder, dark = setup
    wordless = without_words(finder, "at night", "in the dark")
    matches = detect(images, np.where(dark, 0.4, 0.8))
    unnamed = find_unnamed(wordless, matches, wordless.find(matches))
    assert unnamed is not None
    assert unnamed.p < 1e-6
    assert unnamed.missed == pytest.approx(0.6, abs=0.1)
    assert unnamed.num_objects == pytest.approx(dark.sum(), rel=0.2)
    shares = np.bincount(images.instances.image_rows, dark) / EACH
    assert roc_auc_score(shares > 0.9, unnamed.scores) > 0.9
    # The word explains most of it.
    left = find_unnamed(finder, matches, finder.find(matches))
    assert left is None or left.p > 1e4 * unnamed.p


def test_a_condition_stays_until_it_is_refuted(setup) -> None:
    images, finder, dark = setup
    (found,) = finder.find(detect(images, np.where(dark, 0.55, 0.62), seed=5), kept=["at night"])
    assert found.text == "at night"
    assert not finder.find(detect(images, np.where(dark, 0.55, 0.62), seed=5))
    refuted = finder.find(detect(images, np.where(dark, 0.8, 0.6)), kept=["at night"])
    assert "at night" not in {one.text for one in refuted}
    # A word that is not tried any more is forgotten.
    assert not finder.find(detect(images, np.full(len(dark), 0.7)), kept=["on the moon"])


def test_rounds_in_which_other_objects_count(setup) -> None:
    images, finder, dark = setup
    everything, small = (
        detect(images, np.where(dark, 0.4, 0.8), max_area=area) for area in (np.inf, 300)
    )
    before = finder.find(everything)
    assert finder.find(small) == without_words(finder).find(small)
    assert finder.find(small)[0].num_objects < before[0].num_objects
    assert finder.find(everything) == before


def test_a_sure_but_small_effect_is_left_out() -> None:
    found = Condition("at an airport", 2e-5, 3536, 0.81, 0.81, 3130, 0.79, 0.77)
    assert not found.matters
    assert replace(found, missed=0.85).matters
    assert replace(found, false=0.81).matters


def test_images_without_regions_count_as_those_that_the_index_lacks(setup) -> None:
    images, finder, dark = setup
    matches = detect(images, np.where(dark, 0.3, 0.9))
    contexts = ["at night", "in the rain"]
    lacking = np.arange(0, NUM, 10)
    readable = np.setdiff1d(np.arange(NUM), lacking)
    means, whole = finder.index.mean_vectors(), np.float32([[0, 0, 1, 1]])
    outcomes = []
    for num_regions, rows in (
        (np.where(np.isin(np.arange(NUM), lacking), 0, 1), np.arange(NUM)),
        (np.ones(len(readable), np.int64), readable),
    ):
        index = index_from_regions(
            means[readable],
            np.concatenate([[0], np.cumsum(num_regions)]),
            whole.repeat(len(readable), axis=0),
            ids=images.ids[rows],
            sizes=images.sizes[rows],
        )
        finder = ConditionFinder(
            images, index, Axes(), class_names=images.class_names, conditions=WORDS
        )
        outcomes.append(
            (finder.find(matches), measure_contexts(images, matches, index, contexts, Axes()))
        )
    assert outcomes[0] == outcomes[1]
    assert outcomes[0][0]
    assert outcomes[0][1].thresholds["at night"] > 0


def test_the_vocabulary_is_large_and_extendable() -> None:
    words = vocabulary(["at night", "under our floodlights"])
    assert 200 <= len(words) <= 250
    assert words[-1] == "under our floodlights"
    assert words.count("at night") == 1
    assert all("#" not in word and word == word.strip() for word in words)


def test_finding_needs_validation_images(setup) -> None:
    images = setup[0]
    assert make_finder(["at night"], None, Axes(), images.class_names) is None
    with pytest.raises(InputError, match="ValidationSet"):
        make_finder(["auto"], ValidationSet(images), Axes(), images.class_names)
    with pytest.raises(InputError, match="or 'auto'; got 'at night'"):
        read_contexts("at night")

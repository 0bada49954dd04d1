"""Conditions of generated scenes that nobody names, found by the encoder that knows the scenes."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from hardmine import build_index, load_encoder, load_images
from hardmine.detections import Detections, Matches, match_detections
from hardmine.mining.conditions import Condition, ConditionFinder
from hardmine.mining.unnamed import find_unnamed
from hardmine.records import ImageSet
from hardmine.scenes import write_split

NUM = 80
NIGHT = {"at night", "in the dark"}
# What the encoder was taught; any other word means something arbitrary to it.
WORDS = (
    *("by day", "at night", "in the dark", "in the rain", "on a rainy day", "in fog", "indoors"),
    *("on a street", "in a city", "in a meadow", "on the grass", "on a beach", "by the sea"),
    *("in a kitchen", "in a room", "in a desert", "a tiny {}", "a small {}", "a large {}"),
)


@pytest.fixture(scope="module")
def scenes(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ImageSet, ConditionFinder, np.ndarray]:
    """Scenes, a finder, and (objects,) which lie in the dark."""
    folder = tmp_path_factory.mktemp("scenes")
    write_split(folder, "val", range(NUM), contexts={"day": 0.6, "night": 0.4})
    images = load_images(folder, split="val")
    encoder = load_encoder("tiny")
    index = build_index(images, encoder, folder / "val.hmx", clusters="none", workers=1)
    finder = ConditionFinder(
        images, index, encoder, class_names=images.class_names, conditions=WORDS
    )
    entries = json.loads((folder / "annotations" / "val.json").read_text())["images"]
    context = {entry["id"]: entry["context"] for entry in entries}
    dark = np.array([context[image_id] == "night" for image_id in images.ids.tolist()])
    assert images.instances is not None
    return images, finder, dark[images.instances.image_rows]


def detect(images: ImageSet, chance: np.ndarray, seed: int) -> Matches:
    """A detector that finds each object with a chance."""
    labels = images.instances
    assert labels is not None
    rng = np.random.default_rng(seed)
    found = np.flatnonzero(rng.random(len(labels)) < chance)
    detections = Detections(
        labels.image_rows[found].astype(np.int64),
        labels.class_rows[found].astype(np.int64),
        labels.boxes[found].astype(np.float64),
        rng.random(len(found)),
    )
    return match_detections(images, detections, iou_thresholds=[0.5])


def find(
    images: ImageSet, finder: ConditionFinder, chance: np.ndarray, seed: int
) -> tuple[Condition, ...]:
    """What is found of such a detector."""
    return finder.find(detect(images, chance, seed))


def test_night_is_found_among_places_sizes_and_weather(scenes) -> None:
    images, finder, dark = scenes
    for seed in range(3):
        found = find(images, finder, np.where(dark, 0.3, 0.85), seed)
        assert found[0].text in NIGHT, found


def test_night_is_found_where_no_word_names_it(scenes) -> None:
    images, finder, dark = scenes
    finder = ConditionFinder(
        images,
        finder.index,
        finder.encoder,
        class_names=images.class_names,
        conditions=[text for text in WORDS if text not in {*NIGHT, "by day"}],
    )
    matches = detect(images, np.where(dark, 0.3, 0.85), 0)
    unnamed = find_unnamed(finder, matches, finder.find(matches))
    assert unnamed is not None
    at_night = np.zeros(NUM, bool)
    at_night[images.instances.image_rows] = dark
    assert roc_auc_score(at_night, unnamed.scores) > 0.9


def test_nothing_is_found_where_misses_have_no_condition(scenes) -> None:
    images, finder, dark = scenes
    claims = [bool(find(images, finder, np.full(len(dark), 0.6), seed)) for seed in range(10)]
    assert sum(claims) <= 2  # half a one expected

"""Are rain and snow found by themselves where training seldom shows them?

The photos' attributes tell how much more a detector misses in rain or snow than on objects of the
same class and size, and how sure that would be if validation knew them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hardmine.detections import FailureTest, find_outcomes
from hardmine.mining.conditions import vocabulary
from tests.benchmarks.roads.conditions import (
    SYNONYMS,
    KeptTexts,
    Validated,
    make_finder,
    match,
    warmed_up_detectors,
)
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.setup import SIZE
from tests.benchmarks.roads.splits import condition_rows
from tests.benchmarks.roads.training import RoadTrainer
from tests.benchmarks.roads.warmup import warmup_path


def measure_seldom(photos: RoadPhotos, *, repeats: int) -> list[dict[str, Any]]:
    """An entry a detector; another for the first of a condition, on all photos unseen in training.

    Nothing is drawn at random, so nothing is repeated.
    """
    del repeats
    encoder, entries = KeptTexts(photos.encoder), []
    done = set()
    for one in warmed_up_detectors(photos):
        if one.condition == "night":
            continue
        entries.append(_measure(one, photos, encoder))
        if one.condition not in done:
            done.add(one.condition)
            entries.append(_measure(_on_all_unseen(one, photos), photos, encoder))
    return entries


def _measure(one: Validated, photos: RoadPhotos, encoder: KeptTexts) -> dict[str, Any]:
    matches = match(one)
    finder = make_finder(one, photos.index, encoder, vocabulary())
    found = [condition.text for condition in finder.find(matches)]
    words = [word for word in SYNONYMS[one.condition] if word in finder.conditions]
    objects = finder.known(find_outcomes(one.images, matches)[0])
    shown = one.shows[objects.image_rows]
    answers = finder.vectors(objects) @ finder.directions([*words, *found]).T
    test = FailureTest(objects, np.column_stack([shown, answers]).astype(np.float32))
    others = [text for text in found if text not in words]
    given = [1 + len(words) + found.index(text) for text in others]
    beyond = test.association(range(1 + len(words)), given=given)
    best = int(beyond.z[1:].argmax())
    return {
        "detector": one.name,
        "photos": len(one.images),
        "showing": int(one.shows.sum()),
        "objects": int(shown.sum()),
        "recall": 1 - float(objects.failed[shown].mean()),
        "usual recall": 1 - float(test.expected[shown].mean()),
        "z told": float(beyond.z[0]),
        "word": words[best],
        "z word": float(beyond.z[1 + best]),
        "found": found,
    }


def _on_all_unseen(one: Validated, photos: RoadPhotos) -> Validated:
    """The detector on all photos that it was not trained on."""
    scenario, passes, seed = one.name.split()
    trainer = RoadTrainer(
        len(one.images.class_names),
        trunk=photos.roads / "detector" / "trunk.npz",
        size=SIZE,
        seed=int(seed),
    )
    state = torch.load(warmup_path(photos.work, scenario, passes, int(seed)), weights_only=True)
    trainer.load_state_dict(state["trainer"])
    rows = np.setdiff1d(np.arange(len(photos.images)), one.train)
    images = photos.images.subset(rows)
    return replace(
        one,
        images=images,
        found=trainer.detect_photos(photos.pixels(*SIZE), torch.from_numpy(rows), images.sizes),
        shows=condition_rows(one.condition, photos.attributes)[rows],
    )


def seldom_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none without entries."""
    if not entries:
        return []
    lines = [
        "",
        "## Rain and snow that training seldom shows",
        "",
        "1 % of the training photos show it. On 1,000 validation photos, and with one detector "
        "of each on all photos that it was not trained on. Recall where the photos' attributes "
        "tell that they show it, and usual recall on objects of the same classes and sizes. z: how "
        "surely more objects are missed, beyond what the found conditions explain, if the "
        "attributes were known, and by the surest word for it.",
        "",
        "| detector | photos | showing it | objects | recall | usual | z, told | z, surest word | "
        "found |",
        "|---|---:|---:|---:|---:|---:|---:|---|---|",
    ]
    return lines + [
        f"| {one['detector']} | {one['photos']:,} | {one['showing']} | {one['objects']:,} | "
        f"{100 * one['recall']:.1f} % | {100 * one['usual recall']:.1f} % | {one['z told']:.1f} | "
        f"{one['z word']:.1f} {one['word']} | {', '.join(one['found']) or 'nothing'} |"
        for one in entries
    ]

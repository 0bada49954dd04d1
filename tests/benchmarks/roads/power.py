"""How much must be lost in a condition before it is found by itself?

The photos exchange vectors and attributes, so that what a detector misses goes with no condition.
Then found objects are missed at random on the photos that show one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hardmine.detections import FailureTest, benjamini_hochberg, find_outcomes
from hardmine.mining.conditions import FALSE_DISCOVERY_RATE, MIN_MORE, vocabulary
from hardmine.mining.contexts import answer_threshold
from tests.benchmarks.roads.conditions import (
    SYNONYMS,
    KeptTexts,
    make_finder,
    match,
    warmed_up_detectors,
)
from tests.benchmarks.roads.photos import RoadPhotos
from tests.benchmarks.roads.splits import CONDITIONS, condition_rows

# Shares of the found objects that are missed.
SHARES = {"": (0.0,), "night": (0.2, 0.3), "rain": (0.4, 0.7), "snow": (0.4, 0.7)}
_TESTS = 2  # the finder tests objects and detections, and corrects for it; here objects alone


def measure_power(photos: RoadPhotos, *, repeats: int) -> list[dict[str, Any]]:
    """One entry a condition and a share of found objects that is missed; ``""`` for none."""
    base = next(one for one in warmed_up_detectors(photos) if one.name.split()[1] == "usual")
    finder = make_finder(base, photos.index, KeptTexts(photos.encoder), vocabulary())
    objects = finder.known(find_outcomes(base.images, match(base))[0])
    answers = finder.image_vectors() @ finder.directions(finder.conditions).T
    rows = photos.images.rows_of(base.images.ids)
    entries = []
    for condition, share in ((name, share) for name in SHARES for share in SHARES[name]):
        shows = np.zeros(len(rows), bool)
        if condition in CONDITIONS:
            shows = condition_rows(condition, photos.attributes)[rows]
        names = [finder.conditions.index(text) for text in SYNONYMS.get(condition, ())]
        rng = np.random.default_rng(0)
        recall, sure, large, anything = [], 0, 0, 0
        for _ in range(repeats):
            order = rng.permutation(len(rows))
            inside = shows[order][objects.image_rows]
            failed = objects.failed | (inside & (rng.random(len(objects)) < share))
            if condition:
                recall.append([1 - one[inside].mean() for one in (objects.failed, failed)])
            values = answers[order][objects.image_rows]
            test = FailureTest(replace(objects, failed=failed), values)
            p = np.minimum(1, _TESTS * test.association().p)
            allowed = benjamini_hochberg(p, FALSE_DISCOVERY_RATE)
            found = [name for name in names if p[name] <= allowed]
            more = [_more(failed, test.expected, values[:, name]) for name in found]
            sure += bool(found)
            large += any(one >= MIN_MORE for one in more)
            anything += bool((p <= allowed).any())
        before, after = np.mean(recall, axis=0).tolist() if recall else (0.0, 0.0)
        entries.append(
            {
                "condition": condition,
                "photos": int(shows.sum()),
                "recall": before,
                "lost": before - after,
                "sure": sure,
                "large": large,
                "anything": anything,
                "repeats": repeats,
            }
        )
    return entries


def power_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none without entries."""
    if not entries:
        return []
    repeats = entries[0]["repeats"]
    lines = [
        "",
        "## How much must be lost",
        "",
        "The photos exchange vectors and attributes, so that no condition explains what is missed; "
        "then found objects are missed at random on the photos that show one. Tested on objects "
        "alone, by the vector of the whole photo. Recall on these photos before, and points lost; "
        f"in how many of {repeats} exchanges the condition or a synonym is sure (false discovery "
        f"rate {100 * FALSE_DISCOVERY_RATE:.0f} %), is sure and {100 * MIN_MORE:.0f} points more "
        "are missed where it is answered, and anything is sure.",
        "",
        "| condition | photos | recall | points lost | sure | and enough more | anything |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for one in entries:
        before = f"{100 * one['recall']:.0f} %" if one["condition"] else "–"
        lines.append(
            f"| {one['condition'] or 'none'} | {one['photos']} | {before} | "
            f"{100 * one['lost']:.0f} | {one['sure']} | {one['large']} | {one['anything']} |"
        )
    return lines


def _more(failed: np.ndarray, expected: np.ndarray, values: np.ndarray) -> float:
    """How much more is missed than usually where a condition is answered."""
    inside = values >= answer_threshold(values)
    return float(failed[inside].mean() - expected[inside].mean())

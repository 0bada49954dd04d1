"""Is a condition found that no word of the list names?

The words that tell it are taken out of the list. What is found is compared with the density ratio,
by which training photos are drawn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from hardmine.mining.conditions import vocabulary
from hardmine.mining.density_ratio import count_objects, fit_density_ratio
from hardmine.mining.unnamed import find_unnamed
from tests.benchmarks.roads.conditions import (
    ExchangedIndex,
    KeptTexts,
    Validated,
    make_finder,
    match,
    warmed_up_detectors,
)
from tests.benchmarks.roads.photos import RoadPhotos

_TELLS = 0.7  # AUC from which a word tells the condition; below 0.3 it tells the opposite


def measure_unnamed(photos: RoadPhotos, *, repeats: int) -> list[dict[str, Any]]:
    """One entry a detector, with all words and without those that tell its condition."""
    encoder = KeptTexts(photos.encoder)
    return [_measure(one, photos, encoder, repeats=repeats) for one in warmed_up_detectors(photos)]


def _measure(
    one: Validated, photos: RoadPhotos, encoder: KeptTexts, *, repeats: int
) -> dict[str, Any]:
    matches = match(one)
    words = make_finder(one, photos.index, encoder, vocabulary())
    added = words.image_vectors() @ words.directions(words.conditions).T
    aucs = np.array([roc_auc_score(one.shows, column) for column in added.T])
    unclear = np.flatnonzero(np.abs(aucs - 0.5) < _TELLS - 0.5)
    without = make_finder(
        one, photos.index, encoder, [words.conditions[row] for row in unclear.tolist()]
    )
    entry: dict[str, Any] = {"detector": one.name, "hidden": len(aucs) - len(unclear)}
    for name, finder in (("all words", words), ("words hidden", without)):
        found = find_unnamed(finder, matches, finder.find(matches))
        entry[name] = "nothing" if found is None else f"{found.failures} (p {found.p:.0e})"
        entry[f"AUC, {name}"] = 0.5 if found is None else roc_auc_score(one.shows, found.scores)
    means = photos.index.mean_vectors()[photos.index.rows_of(photos.images.ids)]
    own = means[photos.images.rows_of(one.images.ids)]
    missed, _ = count_objects(one.images, matches, one.images.class_names)
    ratio = fit_density_ratio(
        np.asarray(missed.sum(axis=1)).ravel(),
        own,
        np.asarray(photos.images.class_counts.sum(axis=1)).ravel()[one.train],
        means[one.train],
    )
    assert ratio is not None
    entry["AUC, density ratio"] = roc_auc_score(one.shows, ratio.of(own))
    rng = np.random.default_rng(0)
    claims = 0
    for _ in range(repeats):
        index = ExchangedIndex(photos.index, one.images.ids, rng.permutation(len(one.images)))
        finder = make_finder(one, index, encoder, vocabulary())
        claims += find_unnamed(finder, matches, ()) is not None
    return entry | {"claims": claims, "repeats": repeats}


def unnamed_table(entries: Sequence[dict[str, Any]]) -> list[str]:
    """Lines of Markdown; none without entries."""
    if not entries:
        return []
    repeats = entries[0]["repeats"]
    lines = [
        "",
        "## What no word names",
        "",
        "The direction in which objects are missed beyond what the found conditions explain, "
        "measured on photos that it was not fitted to; with all words, and with those hidden that "
        f"tell night from day with an AUC of {_TELLS} or more. AUC: how well the direction, and "
        "the density ratio by which training photos are drawn, tell photos of night. Exchanged: of "
        f"{repeats} validations in which each photo has the vectors of another, in how many "
        "anything is claimed.",
        "",
        "| detector | left with all words | AUC | words hidden | found without them | AUC | "
        "AUC of the density ratio | exchanged |",
        "|---|---|---:|---:|---|---:|---:|---:|",
    ]
    return lines + [
        f"| {one['detector']} | {one['all words']} | {one['AUC, all words']:.2f} | "
        f"{one['hidden']} | {one['words hidden']} | {one['AUC, words hidden']:.2f} | "
        f"{one['AUC, density ratio']:.2f} | {one['claims']} of {repeats} |"
        for one in entries
    ]

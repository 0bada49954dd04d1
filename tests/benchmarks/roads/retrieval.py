"""Retrieval on the road photos: do clusters beat one vector a photo, and all patches?

Asked for: each class, and each class in each light and weather that the attributes tell.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from hardmine.bench.table import Estimate
from hardmine.clusters import cluster
from hardmine.datasets import open_image
from hardmine.encoders.base import DenseFeatures
from hardmine.evaluation import (
    average_precision_at,
    class_relevance,
    rank_hits,
    small_medium_relevance,
)
from hardmine.records import numbers, plain_values
from tests.benchmarks.roads.photos import RoadPhotos

SPECS = (
    "whole",
    "none",
    "kmeans:10",
    "agglomerative:k=50",
    "pyramid:6",
    "kmeans:3/6,context=0.4+whole",
    "kmeans:10,context=0.4+whole",
)
# Attribute, value -> the words for it.
CONDITION_TEXTS = {
    ("timeofday", "daytime"): "by day",
    ("timeofday", "night"): "at night",
    ("timeofday", "dawn/dusk"): "at dusk",
    ("weather", "clear"): "in clear weather",
    ("weather", "overcast"): "under an overcast sky",
    ("weather", "partly cloudy"): "under a partly cloudy sky",
    ("weather", "rainy"): "in the rain",
    ("weather", "snowy"): "in the snow",
    ("weather", "foggy"): "in fog",
}
DEPTH = 50
_MIN_RELEVANT = 10  # photos, for a pair of class and condition to be asked for
_REFERENCE_SIDE = 1280  # of the photos as they were taken and labelled
_BLOCK = 100
_COLUMNS = ("classes", "classes, small and medium", "class and condition")


@dataclass(frozen=True)
class Questions:
    """Texts with the photos that are right answers.

    Attributes:
        texts: Q texts.
        relevant: (Q, N) bool.
        ignored: (Q, N) bool, pairs left out of the ranking.
        kinds: (Q,) entries of ``_COLUMNS``.
    """

    texts: tuple[str, ...]
    relevant: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    kinds: npt.NDArray[np.str_]


def make_questions(photos: RoadPhotos) -> Questions:
    """Classes, classes by their small and medium objects alone, and classes in each condition."""
    names = photos.images.class_names
    every = slice(0, len(names))
    shown, _ = class_relevance(photos.images).block(every)
    small, too_large = small_medium_relevance(photos.images, reference_side=_REFERENCE_SIDE).block(
        every
    )
    assert too_large is not None
    texts = [*names, *names]
    relevant, ignored = [*shown, *small], [*np.zeros_like(shown), *too_large]
    for (attribute, value), words in CONDITION_TEXTS.items():
        holds = photos.attributes[attribute] == value
        for name, row in zip(names, shown, strict=True):
            if (row & holds).sum() >= _MIN_RELEVANT:
                texts.append(f"{name} {words}")
                relevant.append(row & holds)
                ignored.append(np.zeros_like(row))
    num_pairs = len(texts) - 2 * len(names)
    kinds = np.repeat(_COLUMNS, [len(names), len(names), num_pairs])
    return Questions(tuple(texts), np.stack(relevant), np.stack(ignored), kinds)


def measure(photos: RoadPhotos, specs: Sequence[str] = SPECS) -> dict[str, Any]:
    """AP@50 in percent of each clustering and question."""
    questions = make_questions(photos)
    texts = photos.encoder.encode_texts(questions.texts)
    report: dict[str, Any] = {"texts": list(questions.texts), "kinds": questions.kinds.tolist()}
    results = report["clusters"] = {}
    for spec in specs:
        scores, num_vectors = [], 0
        for features in dense_features(photos):
            regions = cluster(features.patches, spec, whole=features.whole)
            similar = regions.vectors @ texts.T
            best = similar.new_full((len(features.whole), len(texts)), -torch.inf)
            rows = regions.image_rows[:, None].expand_as(similar)
            scores.append(best.scatter_reduce_(0, rows, similar, "amax"))
            num_vectors += len(regions)
        hits = rank_hits(torch.cat(scores).T.numpy(), questions.relevant, questions.ignored)
        results[spec] = {
            "vectors": round(num_vectors / len(photos.images), 1),
            "ap": plain_values((100 * average_precision_at(hits, DEPTH)).round(2)),
        }
        print(f"{spec}: {num_vectors / len(photos.images):.1f} vectors", flush=True)
    return report


def dense_features(photos: RoadPhotos) -> Iterator[DenseFeatures]:
    """Patches and whole-image vectors of all photos in order, embedded once and kept on disk."""
    folder = photos.work / "features"
    folder.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(photos.images), _BLOCK):
        path = folder / f"{start:05d}.npz"
        if not path.exists():
            rows = range(start, min(start + _BLOCK, len(photos.images)))
            found = [_embed(photos, row) for row in rows]
            part = path.with_suffix(f".{os.getpid()}.part.npz")
            patches = torch.cat([features.patches for features in found]).half().numpy()
            whole = torch.cat([features.whole for features in found]).numpy()
            np.savez(part, patches=patches, whole=whole)
            part.replace(path)
        with np.load(path) as stored:
            patches = torch.from_numpy(stored["patches"]).float()
            yield DenseFeatures(
                patches=torch.nn.functional.normalize(patches, dim=-1),
                whole=torch.from_numpy(stored["whole"]),
            )


def _embed(photos: RoadPhotos, row: int) -> DenseFeatures:
    image = open_image(photos.images.path(row))
    return photos.encoder.encode_images(photos.encoder.preprocess(image)[None])


def to_markdown(report: dict[str, Any]) -> str:
    """One row a clustering: mAP@50 with the error over questions of its lead over ``whole``."""
    kinds = np.array(report["kinds"])
    counts = [int((kinds == column).sum()) for column in _COLUMNS]
    text = [
        "# Do clusters find more on road photos?",
        "",
        f"`python -m tests.benchmarks.roads retrieval`: 6,301 dashcam photos, mAP@{DEPTH} in "
        f"percent, AP@{DEPTH} divided by min(relevant photos, {DEPTH}). Questions: "
        f"{counts[0]} class names; the same with only small and medium objects (COCO's edges at "
        f'1280 pixels) as right answers; {counts[2]} pairs such as "person at night". Behind '
        "the slash the lead over one vector a photo, ± its standard error over the questions.",
        "",
        "| regions | vectors | " + " | ".join(_COLUMNS) + " |",
        "|---" + "|---:" * (len(_COLUMNS) + 1) + "|",
    ]
    plain = numbers(report["clusters"]["whole"]["ap"])
    for spec, result in report["clusters"].items():
        values = numbers(result["ap"])
        cells = []
        for column in _COLUMNS:
            own = kinds == column
            lead = "" if spec == "whole" else f" / {Estimate.of((values - plain)[own]).signed()}"
            cells.append(f"{np.nanmean(values[own]):.1f}{lead}")
        text.append(f"| `{spec}` | {result['vectors']:g} | " + " | ".join(cells) + " |")
    classes = [row for row, kind in enumerate(kinds) if kind == _COLUMNS[0]]
    names = [report["texts"][row] for row in classes]
    text += ["", "By class:", "", "| regions | " + " | ".join(names) + " |"]
    text.append("|---" + "|---:" * len(names) + "|")
    for spec, result in report["clusters"].items():
        values = [f"{result['ap'][row]:.0f}" for row in classes]
        text.append(f"| `{spec}` | " + " | ".join(values) + " |")
    return "\n".join(text) + "\n"


def write_report(report: dict[str, Any], folder: Path) -> list[Path]:
    """Write ``roads_retrieval.json`` and ``roads_retrieval.md``."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "roads_retrieval.json", folder / "roads_retrieval.md"]
    written[0].write_text(json.dumps(report, indent=1) + "\n")
    written[1].write_text(to_markdown(report))
    return written

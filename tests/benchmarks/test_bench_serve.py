"""Seconds of what the pages ask of a COCO-sized index, against a search."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardmine.detections import match_detections
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store
from hardmine.mining.conditions import Condition
from hardmine.records import ImageSet, Instances
from hardmine.serve import Workspace
from hardmine.serve.asking import HitsQuery
from hardmine.serve.collect import Wishes, collect, make_wishes
from hardmine.serve.conditions import find_conditions, show_conditions
from hardmine.serve.pages import ask_page
from hardmine.serve.questions import Question
from hardmine.serve.site import Site
from tests.benchmarks.test_bench_contexts import make_val_index, make_validation

IMAGES, REGIONS, DIM = 118_287, 11, 512


class RandomTexts:
    """A direction for each text."""

    dim, fingerprint = DIM, "random"

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        """Unit vectors."""
        generator = torch.Generator().manual_seed(sum(map(ord, "".join(texts))))
        vectors = torch.randn(len(texts), DIM, generator=generator)
        return vectors / vectors.norm(dim=1, keepdim=True)


def make_index() -> ExactIndex:
    rng = np.random.default_rng(0)
    shards = []
    for start in range(0, IMAGES, 8192):
        count = min(8192, IMAGES - start)
        vectors = rng.standard_normal((count * REGIONS, DIM), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        boxes = np.sort(rng.random((count * REGIONS, 2, 2), dtype=np.float32), axis=1)
        shards.append(
            Shard(
                vectors.astype(np.float16),
                None,
                np.arange(count + 1) * REGIONS,
                boxes.reshape(-1, 4),
                np.ones(count * REGIONS, np.float32),
                np.arange(start, start + count),
            )
        )
    ids = np.arange(IMAGES)
    paths = tuple(f"{row}.jpg" for row in range(IMAGES))
    sizes = np.tile(np.int32([480, 640]), (IMAGES, 1))
    return ExactIndex(Store(Path(), ids, paths, sizes, DIM, "random", "none", tuple(shards)))


def make_labels(index: ExactIndex) -> ImageSet:
    """Seven objects an image of 80 classes."""
    rng = np.random.default_rng(1)
    rows = np.repeat(np.arange(IMAGES, dtype=np.int32), 7)
    return ImageSet(
        root=index.root,
        ids=index.ids,
        paths=index.paths,
        sizes=index.sizes,
        class_names=tuple(f"class{row}" for row in range(80)),
        class_ids=np.arange(80),
        instances=Instances(
            rows,
            rng.integers(0, 80, len(rows), np.int32),
            np.tile(np.float32([0, 0, 50, 50]), (len(rows), 1)),
            np.full(len(rows), 2500, np.float32),
            np.zeros(len(rows), bool),
            np.arange(len(rows)),
        ),
    )


def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
    """CPU seconds of a call, and what it returns."""
    start = time.process_time()
    value = run()
    return time.process_time() - start, value


@pytest.mark.benchmark
def test_bench_serve() -> None:
    site = Site(
        Workspace("coco", make_index(), RandomTexts(), folder=Path(tempfile.gettempdir(), "none"))  # type: ignore[arg-type]
    )
    print(f"\n{IMAGES:,} images × {REGIONS} regions × {DIM}, seconds of CPU time")
    page, _ = seconds(lambda: ask_page(site))
    asked = [
        seconds(lambda text=text: site.asking.ask(Question(texts=(text,))))  # type: ignore[misc]
        for text in "abcdef"
    ]
    vector = RandomTexts().encode_texts(["a"]).numpy()
    plain = min(seconds(lambda: site.workspace.index.search(vector, 60))[0] for _ in range(5))
    question = min(time for time, _ in asked[1:])
    first, _ = seconds(lambda: site.asking.hits(asked[0][1], HitsQuery()))
    further, _ = seconds(lambda: site.asking.hits(asked[0][1], HitsQuery(offset=600)))
    print(f"first page {page:.3f}")
    print(f"question {question:.3f}, {question / plain:.1f} × a search for 60 hits ({plain:.3f})")
    print(f"first hits {first:.3f}, further hits {further:.3f}")
    assert first + further < question


@pytest.mark.benchmark
def test_bench_collect_and_conditions() -> None:
    index = make_index()
    val, detections = make_validation()
    space = Workspace(
        "coco",
        index,
        RandomTexts(),  # type: ignore[arg-type]
        images=make_labels(index),
        val_images=val,
        val_index=make_val_index(val),
        pool=index,
    )
    search, _ = seconds(lambda: index.search(RandomTexts().encode_texts(["a"]).numpy(), 60))
    need = dict.fromkeys(space.class_names, 1.0)
    wishing, wishes = seconds(lambda: make_wishes(space, need, {}))
    choosing, chosen = seconds(lambda: collect(Wishes(wishes, ""), index, 50))
    matches = match_detections(val, detections)
    finding, _ = seconds(lambda: find_conditions(space, matches, ()))
    found = [
        Condition(text, 0.0, 1000, 0.5, 0.4, 1000, 0.1, 0.1)
        for text in ("at night", "in the rain", "in fog", "in the snow", "at dawn")
    ]
    showing, _ = seconds(lambda: show_conditions(space, found, matches, []))
    print(f"\nseconds of CPU time; a search for 60 hits takes {search:.2f}")
    print(f"collect: {wishing:.1f} for what is wanted of 80 classes, {choosing:.1f} to choose 50")
    print(f"conditions: {finding:.1f} to find on 5,000 images, {showing:.1f} to show five")
    assert len(chosen.picks) <= 50

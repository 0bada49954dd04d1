"""Seconds of a question to a COCO-sized index on the pages, against the search itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store
from hardmine.serve import Workspace
from hardmine.serve.asking import HitsQuery
from hardmine.serve.pages import ask_page
from hardmine.serve.questions import Question
from hardmine.serve.site import Site

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


@pytest.mark.benchmark
def test_bench_serve() -> None:
    site = Site(
        Workspace("coco", make_index(), RandomTexts(), folder=Path(tempfile.gettempdir(), "none"))  # type: ignore[arg-type]
    )

    def seconds(run: Callable[[], Any]) -> tuple[float, Any]:
        start = time.process_time()
        value = run()
        return time.process_time() - start, value

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

"""Measures what a large index costs, in CPU seconds, and prints it as one line of JSON.

Run as a script: ``scale_measure.py FOLDER``, an index that ``write_index`` has written.
"""

from __future__ import annotations

import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from memory import peak_memory
from msgspec.structs import replace

from hardmine import HardMiner, open_index
from hardmine._version import __version__
from hardmine.encoders.base import DenseFeatures
from hardmine.index import read_manifest
from hardmine.index.storage import manifest as records
from hardmine.index.storage.image_table import FileFacts, ImageTable, write_table
from hardmine.index.storage.shard_files import write_shard
from hardmine.records import ImageSet, Instances

DIM, REGIONS, CLASSES, SHARD = 512, 11, 80, 1024
WRITTEN = 100  # shards; the files of more are links to these
NAMES = tuple(f"class {number}" for number in range(CLASSES))


class Directions:
    """A random direction for each text."""

    dim = DIM
    fingerprint = "directions"

    def preprocess(self, image: object) -> torch.Tensor:
        """No image is encoded."""
        raise NotImplementedError

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """The same."""
        raise NotImplementedError

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """(C, D) unit vectors."""
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = [torch.randn(DIM, generator=torch.Generator().manual_seed(s)) for s in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def write_index(folder: Path, count: int, dim: int = DIM) -> float:
    """Write an index of random directions by hardmine's own writers, without images.

    From 102,400 images on, the same files take part again under other names.

    Returns:
        CPU seconds of what a build writes at its end: the table of images and the manifest.
    """
    (folder / "shards").mkdir(parents=True)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((SHARD * REGIONS, dim), dtype=np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    corners = np.sort(rng.random((SHARD * REGIONS, 2, 2)), axis=1)
    shards: list[records.ShardRecord] = []
    for number, start in enumerate(range(0, count, SHARD)):
        size = min(SHARD, count - start)
        if number >= WRITTEN and size == SHARD:
            shards.append(_linked(folder, number, shards[number % WRITTEN]))
            continue
        # Other vectors in each shard: the same numbers in other dimensions.
        mixed = np.ascontiguousarray(vectors[: size * REGIONS, rng.permutation(dim)])
        layout = {
            "offsets": np.arange(size + 1, dtype=np.int64) * REGIONS,
            "boxes": corners[: size * REGIONS].reshape(-1, 4).astype(np.float16),
            "mass": np.full(size * REGIONS, 1 / REGIONS, np.float32),
        }
        shards.append(
            write_shard(folder, number, [mixed], layout, dim=dim, dtype="float16", scratch=folder)
        )
    rows = np.arange(count)
    facts = FileFacts(480, 640, 100_000, 1_700_000_000_000_000_000, "0" * 64)
    table = ImageTable(
        rows * 7,
        tuple(f"train/{row:012d}.jpg" for row in range(count)),
        (facts,) * count,
        (rows // SHARD).astype(np.int32),
        (rows % SHARD).astype(np.int32),
    )
    start = time.process_time()
    written = write_table(folder, records.table_name(0), table, scratch=folder)
    manifest = records.Manifest(
        format=records.FORMAT,
        hardmine=__version__,
        generation=0,
        encoder=records.EncoderRecord(Directions.fingerprint, dim),
        clusters=records.ClustersRecord("kmeans:10+whole", 0),
        dtype="float16",
        images=records.ImagesRecord("generated", "/data", count, 0, written),
        shards=tuple(shards),
    )
    records.write_manifest(folder, manifest, scratch=folder)
    return time.process_time() - start


def _linked(folder: Path, number: int, other: records.ShardRecord) -> records.ShardRecord:
    """A shard whose files are those of another."""
    files = {}
    for field in ("vectors", "layout"):
        file = getattr(other, field)
        name = file.name.replace(f"{other.number:05d}", f"{number:05d}")
        os.link(folder / file.name, folder / name)
        files[field] = replace(file, name=name)
    return replace(other, number=number, **files)


def labels_of(count: int) -> ImageSet:
    """One object of a class in each image."""
    rows = np.arange(count)
    return ImageSet(
        root=Path("/data"),
        ids=rows * 7,
        paths=("",) * count,
        sizes=np.full((count, 2), (480, 640), np.int32),
        class_names=NAMES,
        class_ids=np.arange(1, CLASSES + 1),
        instances=Instances(
            rows.astype(np.int32),
            (rows % CLASSES).astype(np.int32),
            np.tile(np.float32([10, 10, 60, 60]), (count, 1)),
            np.full(count, 2500, np.float32),
            np.zeros(count, bool),
            rows,
        ),
    )


def measure(folder: Path) -> dict[str, float]:
    """CPU seconds of each step, and the most memory that they take."""
    out: dict[str, float] = {}

    def timed(name: str, run: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = run()
        out[name] = round(time.process_time() - start, 3)
        return result

    encoder = Directions()
    queries = encoder.encode_texts(NAMES).numpy()
    open_index(folder, verify=False).search(np.ones((1, DIM)), 1)  # imports
    labels = labels_of(read_manifest(folder).images.count)
    metrics = dict.fromkeys(NAMES, 0.3) | {NAMES[0]: 0.9}  # 79 weak classes
    peak: list[int] = []
    with peak_memory(peak):
        index = timed("open", lambda: open_index(folder, verify=False))
        timed("layouts and one query", lambda: index.search(queries[:1], 1000))
        timed("one query", lambda: index.search(queries[1:2], 1000))
        timed("80 queries", lambda: index.search(queries, 1000))
        miner = HardMiner(index, encoder=encoder, images=labels, strict=True)
        timed("one round", lambda: miner.step(metrics))
    out["MB"] = round(peak[0] / 1e6)
    return out


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure(Path(sys.argv[1]))))

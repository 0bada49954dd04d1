"""Time of a round at COCO's size, compared with reading the index once.

118,287 images × 50 regions × 512 dimensions (6 GB of float16) are generated on disk. Where
memory cannot hold them in the file cache, 10 regions an image are used, as the table then says.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from hardmine import HardMiner, HardMiningSampler, NeedRules
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store
from hardmine.records import ImageSet, Instances

NUM_IMAGES, NUM_CLASSES, DIM = 118_287, 80, 512
PER_SHARD = 8192
NAMES = tuple(f"class{row}" for row in range(NUM_CLASSES))


class RandomTexts:
    """Maps each text to a fixed random direction. Images are never embedded in this benchmark."""

    dim = DIM
    fingerprint = "random-texts"

    def preprocess(self, image: object) -> torch.Tensor:
        raise NotImplementedError

    def encode_images(self, batch: torch.Tensor) -> object:
        raise NotImplementedError

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = [torch.randn(DIM, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def make_index(folder: Path, regions: int) -> ExactIndex:
    """Shards of unit vectors on disk, memory-mapped."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((PER_SHARD, DIM), np.float32)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    shards = []
    for start in range(0, NUM_IMAGES, PER_SHARD):
        count = min(PER_SHARD, NUM_IMAGES - start)
        file = folder / f"{start}.npy"
        shape = (count * regions, DIM)
        vectors = np.lib.format.open_memmap(file, "w+", np.float16, shape)
        for part in range(regions):
            # Permuted dimensions: cheap, and different vectors for each region.
            vectors[part * count : (part + 1) * count] = np.roll(block[:count], start + part, 1)
        vectors.flush()
        shards.append(
            Shard(
                np.load(file, mmap_mode="r"),
                None,
                np.arange(count + 1) * regions,
                np.zeros((count * regions, 4), np.float16),
                np.ones(count * regions, np.float16),
                np.arange(start, start + count),
            )
        )
    store = Store(
        folder,
        np.arange(NUM_IMAGES),
        tuple(f"{row}.jpg" for row in range(NUM_IMAGES)),
        np.zeros((NUM_IMAGES, 2), np.int32),
        DIM,
        RandomTexts.fingerprint,
        "none",
        tuple(shards),
    )
    return ExactIndex(store)


def make_labels() -> ImageSet:
    """As many labels as COCO has, as unevenly distributed: 7 boxes and 3 classes an image."""
    rng = np.random.default_rng(1)
    shares = 1 / np.arange(1, NUM_CLASSES + 1)
    rows = np.sort(rng.integers(0, NUM_IMAGES, 860_000)).astype(np.int32)
    columns = rng.choice(NUM_CLASSES, len(rows), p=shares / shares.sum()).astype(np.int32)
    return ImageSet(
        root=Path(),
        ids=np.arange(NUM_IMAGES),
        paths=tuple(f"{row}.jpg" for row in range(NUM_IMAGES)),
        sizes=np.zeros((NUM_IMAGES, 2), np.int32),
        class_names=NAMES,
        class_ids=np.arange(NUM_CLASSES),
        instances=Instances(
            rows,
            columns,
            np.tile(np.float32([0, 0, 9, 9]), (len(rows), 1)),
            rng.lognormal(7, 2, len(rows)).astype(np.float32),
            np.zeros(len(rows), bool),
            np.arange(len(rows)),
        ),
    )


def read_once(index: ExactIndex) -> int:
    """Touch every cache line of the vectors."""
    return sum(int(shard.vectors.view(np.uint16)[:, ::32].sum()) for shard in index.store.shards)


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@pytest.mark.benchmark
def test_a_round_at_coco_size(tmp_path: Path) -> None:
    regions = 50 if psutil.virtual_memory().available > 9 * 2**30 else 10
    index = make_index(tmp_path, regions)
    images = make_labels()
    sampler = HardMiningSampler(NUM_IMAGES)
    rng = np.random.default_rng(2)
    ap = rng.uniform(0.05, 0.6, NUM_CLASSES)
    read_once(index)
    lines = [("reading the index once (file cache)", seconds(lambda: read_once(index)))]
    miner = HardMiner(
        index,
        sampler,
        encoder=RandomTexts(),
        images=images,
        rounds=tmp_path / "rounds.jsonl",
        need=NeedRules(momentum=0.0),
    )
    all_weak = dict.fromkeys(NAMES, 0.3) | {NAMES[0]: 0.9}
    lines.append(("79 weak classes, no scores cached", seconds(lambda: miner.step(all_weak))))
    lines.append(("79 weak classes, scores cached", seconds(lambda: miner.step(all_weak))))
    metrics = dict(zip(NAMES, ap, strict=True))
    lines.append(("40 weak classes, scores cached", seconds(lambda: miner.step(metrics))))
    miner.contexts = ("at night",)
    done = miner.step(metrics)
    lines.append((f"{len(done.queries)} queries, half of them in a new context", done.seconds))
    lines.append(("the sampler's next epoch", seconds(lambda: next(iter(sampler)))))
    reading = lines[0][1]
    print(f"\n{NUM_IMAGES:,} images × {regions} regions × {DIM}, {NUM_CLASSES} classes")
    print(f"{'':46} {'seconds':>8} {'× reading':>10}")
    for name, took in lines:
        print(f"{name:46} {took:8.2f} {took / reading:10.2f}")
    assert lines[2][1] < 10

"""CPU seconds and memory of a round, beside the bare matrix product of its scores.

Every class is weak. The vectors (11 an image, 512 dimensions, float16) are generated on disk and
memory-mapped: 1.3 GB at COCO's size, 11 GB for a million images. CPU seconds, since the ratio to
the bare product of the same process then holds on a busy machine too.
"""

from __future__ import annotations

import hashlib
import importlib
import shutil
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from memory import peak_memory

from hardmine import HardMiner, HardMiningSampler, NeedRules
from hardmine.index.search.blocks import iter_blocks
from hardmine.index.search.exact import ExactIndex
from hardmine.index.search.product import Product
from hardmine.index.storage.store import Shard, Store
from hardmine.mining.scores import ScoreCache
from hardmine.records import ImageSet, Instances

DIM, REGIONS, PER_SHARD = 512, 11, 8192
OBJECTS_EACH = 7.3  # as in COCO


@dataclass(frozen=True)
class Size:
    """Of a data set, and the CPU seconds that a later round may take."""

    name: str
    num_images: int
    num_classes: int
    later_limit: float

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"class{row}" for row in range(self.num_classes))


SIZES = (
    Size("COCO", 118_287, 80, 0.3),
    Size("LVIS", 100_000, 1203, 1.0),
    Size("COCO's images, LVIS's classes", 118_287, 1203, 1.0),
    Size("Objects365", 1_000_000, 365, 4.0),
)


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


def make_index(folder: Path, size: Size) -> ExactIndex:
    """Shards of unit vectors on disk, memory-mapped."""
    rng = np.random.default_rng(0)
    block = rng.standard_normal((PER_SHARD, DIM), np.float32)
    block /= np.linalg.norm(block, axis=1, keepdims=True)
    shards = []
    for start in range(0, size.num_images, PER_SHARD):
        count = min(PER_SHARD, size.num_images - start)
        file = folder / f"{start}.npy"
        shape = (count * REGIONS, DIM)
        vectors = np.lib.format.open_memmap(file, "w+", np.float16, shape)
        for part in range(REGIONS):
            # Permuted dimensions: cheap, and different vectors for each region.
            vectors[part * count : (part + 1) * count] = np.roll(block[:count], start + part, 1)
        vectors.flush()
        shards.append(
            Shard(
                np.load(file, mmap_mode="r"),
                None,
                np.arange(count + 1) * REGIONS,
                np.zeros((count * REGIONS, 4), np.float16),
                np.ones(count * REGIONS, np.float16),
                np.arange(start, start + count),
            )
        )
    store = Store(
        folder,
        np.arange(size.num_images),
        tuple(f"{row}.jpg" for row in range(size.num_images)),
        np.zeros((size.num_images, 2), np.int32),
        DIM,
        RandomTexts.fingerprint,
        "none",
        tuple(shards),
        folder=folder / "bench.hmx",
        digest="0" * 64,
    )
    return ExactIndex(store)


def make_labels(size: Size) -> ImageSet:
    """As many labels an image as COCO has, as unevenly distributed over the classes."""
    rng = np.random.default_rng(1)
    shares = 1 / np.arange(1, size.num_classes + 1)
    count = int(OBJECTS_EACH * size.num_images)
    rows = np.sort(rng.integers(0, size.num_images, count)).astype(np.int32)
    columns = rng.choice(size.num_classes, count, p=shares / shares.sum()).astype(np.int32)
    return ImageSet(
        root=Path(),
        ids=np.arange(size.num_images),
        paths=tuple(f"{row}.jpg" for row in range(size.num_images)),
        sizes=np.zeros((size.num_images, 2), np.int32),
        class_names=size.names,
        class_ids=np.arange(size.num_classes),
        instances=Instances(
            rows,
            columns,
            np.tile(np.float32([0, 0, 9, 9]), (count, 1)),
            rng.lognormal(7, 2, count).astype(np.float32),
            np.zeros(count, bool),
            np.arange(count),
        ),
    )


class Phases:
    """CPU seconds of functions, without those of others that they call."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._patch = patch
        self._open: list[str] = []
        self._since = time.process_time()
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._switch()
        self._open.append(name)
        try:
            yield
        finally:
            self._switch()
            self._open.pop()

    def watch(self, target: str, name: str) -> None:
        """Count the time of a function, named as ``monkeypatch`` names it, to a phase."""
        module, _, attribute = target.rpartition(".")
        owner: Any = importlib.import_module(module.partition(":")[0])
        for part in module.split(":")[1:]:
            owner = getattr(owner, part)
        function = getattr(owner, attribute)

        def timed(*args: Any, **options: Any) -> Any:
            with self.phase(name):
                return function(*args, **options)

        self._patch.setattr(owner, attribute, timed)

    def _switch(self) -> None:
        now = time.process_time()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now


WATCHED = {
    "hardmine.mining.scores:ScoreCache._score": "scores",
    "hardmine.mining.scores.embed_queries": "texts",
    "hardmine.mining.score_files:ScoreFiles.read": "files",
    "hardmine.mining.score_files:ScoreFiles.write": "files",
    "hardmine.mining.evidence.gather_evidence": "evidence",
    "hardmine.mining.mine.split_targets": "targets",
    "hardmine.mining.mine.balance_factors": "weights",
    "hardmine.mining.mine.image_weights": "weights",
}
COLUMNS = ("texts", "scores", "files", "evidence", "targets", "weights", "rest")


def bare_product(index: ExactIndex, num_queries: int) -> None:
    """All regions times all queries in the fastest kind of this CPU, and nothing else."""
    queries = np.random.default_rng(2).standard_normal((num_queries, DIM), np.float32)
    product = Product(queries / np.linalg.norm(queries, axis=1, keepdims=True))
    for block in iter_blocks(index.store, max(2_000_000 // num_queries, 1)):
        product(block)


def read_once(index: ExactIndex) -> None:
    """Touch every cache line of the vectors."""
    for shard in index.store.shards:
        shard.vectors.view(np.uint16)[:, ::32].sum()


def cpu_seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(size: Size, folder: Path, patch: pytest.MonkeyPatch) -> dict[str, float]:
    """Print the table of a size; CPU seconds of its lines."""
    index, images = make_index(folder, size), make_labels(size)
    read_once(index)
    taken = {
        "reading the index": cpu_seconds(lambda: read_once(index)),
        "bare product": cpu_seconds(lambda: bare_product(index, size.num_classes)),
    }
    phases = Phases(patch)
    for target, name in WATCHED.items():
        phases.watch(target, name)
    all_weak = dict.fromkeys(size.names, 0.3) | {size.names[0]: 0.9}
    kind = "fits in float32" if size.num_images * size.num_classes * 4 <= 512 * 2**20 else "float16"
    print(f"\n{size.name}: {size.num_images:,} × {REGIONS} × {DIM}, {size.num_classes} classes,")
    print(f"{kind}; CPU s with {torch.get_num_threads()} threads; GB beside the labels")
    print(f"{'':24}{'CPU s':>7}{'GB':>6}" + "".join(f"{name:>9}" for name in COLUMNS))
    for name, seconds in taken.items():
        print(f"{name:24}{seconds:7.2f}")
    digests = set()
    for run in ("this run", "the next run"):
        miner = HardMiner(
            index,
            HardMiningSampler(size.num_images),
            encoder=RandomTexts(),
            images=images,
            need=NeedRules(momentum=0.0),
            strict=True,
        )
        for number in ("first round", "later round"):
            phases.seconds.clear()
            peak: list[int] = []
            with peak_memory(peak), phases.phase("rest"):
                digests.add(miner.step(all_weak).digest)
            line = f"{run}, {number}"
            taken[line] = sum(phases.seconds.values())
            shares = "".join(f"{phases.seconds[name]:9.2f}" for name in COLUMNS)
            print(f"{line:24}{taken[line]:7.2f}{peak[0] / 2**30:6.2f}{shares}")
    assert len(digests) == 1
    return taken


@pytest.mark.benchmark
def test_more_scores_than_memory(tmp_path: Path) -> None:
    """As 10 million images and 1,203 classes: memory has room for 25 rows of scores."""
    size = Size("", 20_000, 1203, 0)
    index = make_index(tmp_path, size)
    in_memory = ExactIndex(replace(index.store, folder=None))  # of one without a folder
    read_once(index)
    print(f"\n{size.num_images:,} × {REGIONS} × {DIM}, {size.num_classes} queries, 1 MB for scores")
    print(f"{'':24}{'CPU s':>7}{'GB':>6}")
    digests, taken = set(), {}
    for name, kind in (
        ("a pass for each 25", in_memory),
        ("one pass, through files", index),
        ("the next run", index),
    ):
        cache = ScoreCache(
            kind,
            RandomTexts(),
            index.ids,
            num_classes=size.num_classes,
            max_bytes=25 * 2 * size.num_images,
        )
        peak: list[int] = []
        phrases = [(name,) for name in size.names]
        with peak_memory(peak):
            started = time.process_time()
            hashed = hashlib.sha256()
            for row in cache.each(phrases):
                hashed.update(row)
            taken[name] = time.process_time() - started
        digests.add(hashed.digest())
        print(f"{name:24}{taken[name]:7.2f}{peak[0] / 2**30:6.2f}")
    assert len(digests) == 1
    assert taken["one pass, through files"] < taken["a pass for each 25"]


@pytest.mark.benchmark
@pytest.mark.parametrize("size", SIZES, ids=[size.name for size in SIZES])
def test_a_round(size: Size, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = size.num_images * REGIONS * DIM * 2
    scores = size.num_images * size.num_classes * 4
    if shutil.disk_usage(tmp_path).free < 2 * vectors + scores:
        pytest.skip(f"needs {(2 * vectors + scores) / 2**30:.0f} GB of disk")
    if psutil.virtual_memory().available < 2 * 2**30:
        pytest.skip("needs 2 GB of free memory")
    taken = measure(size, tmp_path, monkeypatch)
    least = taken["bare product"] + taken["reading the index"]
    print(f"first round / (bare product + one read): {taken['this run, first round'] / least:.2f}")
    assert taken["this run, later round"] < size.later_limit

"""A search of an index ten times as large as the memory that it may use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

DIM, TILE, TILES = 256, 40_000, 10
LIMIT = TILE * TILES * DIM * 2 // 10

SEARCH = """
import resource, sys
from pathlib import Path
import numpy as np, torch
from hardmine.index.search.exact import ExactIndex, index_from_regions
from hardmine.index.storage.store import Shard, Store

folder, dim, limit, action = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.set_num_threads(1)
queries = np.load(folder / "queries.npy")
# Libraries allocate their own buffers at the first call.
warm = index_from_regions(np.tile(queries[:1], (5000, 1)), np.arange(5001), ids=np.arange(5000))
warm.search(queries, 3)
warm.scores(queries)

vectors = np.load(folder / "vectors.npy", mmap_mode="r")
images = len(vectors) // 20
shard = Shard(
    vectors, None, np.arange(images + 1) * 20,
    np.lib.stride_tricks.as_strided(np.zeros(4, np.float32), (len(vectors), 4), (0, 4)),
    np.lib.stride_tricks.as_strided(np.ones(1, np.float32), (len(vectors),), (0,)),
    np.arange(images),
)
sizes = np.zeros((images, 2), np.int32)
ids = np.arange(images)
store = Store(Path("."), ids, ("x",) * images, sizes, dim, "", "none", (shard,))
used = int(next(x for x in open("/proc/self/status") if x.startswith("VmData")).split()[1]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + limit, used + limit))
if action == "copy":
    np.array(vectors)
index = ExactIndex(store)
hits = index.search(queries, 10)
np.save(folder / "rows.npy", hits.image_rows)
total = 0
for part, scores in index.iter_scores(queries):
    total += scores.shape[1]
assert total == images
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of 20 regions per image, each image ten times, and three queries."""
    place = tmp_path_factory.mktemp("large")
    rng = np.random.default_rng(0)
    tile = rng.standard_normal((TILE, DIM), dtype=np.float32)
    tile /= np.linalg.norm(tile, axis=1, keepdims=True)
    whole = np.lib.format.open_memmap(place / "vectors.npy", "w+", np.float16, (TILE * TILES, DIM))
    for start in range(0, TILE * TILES, TILE):
        whole[start : start + TILE] = tile
    whole.flush()
    queries = rng.standard_normal((3, DIM), dtype=np.float32)
    np.save(place / "queries.npy", queries / np.linalg.norm(queries, axis=1, keepdims=True))
    return place


def run(folder: Path, action: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SEARCH, str(folder), str(DIM), str(LIMIT), action]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's memory limits")
def test_a_search_needs_a_tenth_of_the_index(folder: Path) -> None:
    done = run(folder, "search")
    assert done.returncode == 0, done.stderr
    rows = np.load(folder / "rows.npy")
    # Each image exists ten times: the ten best are copies of one image, in the order of rows.
    tile = np.load(folder / "vectors.npy", mmap_mode="r")[:TILE].astype(np.float64)
    queries = np.load(folder / "queries.npy").astype(np.float64)
    best = (queries @ tile.T).reshape(3, -1, 20).max(axis=2).argmax(axis=1)
    np.testing.assert_array_equal(rows, best[:, None] + np.arange(10) * (TILE // 20))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's memory limits")
def test_a_copy_of_the_vectors_exceeds_the_limit(folder: Path) -> None:
    done = run(folder, "copy")
    assert done.returncode != 0
    assert "allocate" in done.stderr

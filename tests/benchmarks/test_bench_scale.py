"""How the cost of an index grows with its images, in CPU seconds of one thread; see the results.

Generated: 20,000 and 200,000 images × 11 regions × 512 dimensions. ``HARDMINE_BENCH_LARGE=1`` adds
2,000,000. Beyond 102,400 images, the shards are those of the first again and again, so that each
index takes 1.3 GB on disk at most, for as long as it is measured. Its files are in the cache of the
system. A second test prints recall and time of databases beside exact search.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from rich.table import Table
from scale_measure import DIM, NAMES, REGIONS, Directions, write_index

from hardmine.index import open_index

pytestmark = pytest.mark.benchmark
ROOT = Path(__file__).resolve().parents[2]
SIZES = [20_000, 200_000] + ([2_000_000] if os.environ.get("HARDMINE_BENCH_LARGE") else [])
RESULTS = Path(__file__).parent / "results"


def test_cost_grows_with_the_number_of_images(tmp_path: Path) -> None:
    measured: dict[int, dict[str, float]] = {}
    write_index(tmp_path / "first", 1)  # imports
    for count in SIZES:
        folder = tmp_path / str(count)
        finished = write_index(folder, count)
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/support/scale_measure.py"), str(folder)],
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests/support")])}
            | {"OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        measured[count] = {"end of a build": round(finished, 3), **json.loads(done.stdout)}
        shutil.rmtree(folder)
    Console(width=120).print(table_of(measured))
    (RESULTS / "scale.json").write_text(json.dumps(measured, indent=1) + "\n")
    draw(measured)
    small, large = measured[SIZES[0]], measured[SIZES[1]]
    for step in ("one query", "80 queries", "one round"):
        # Ten times the images: linear within a factor of two.
        assert large[step] <= 20 * max(small[step], 0.01), step


def table_of(measured: dict[int, dict[str, float]]) -> Table:
    table = Table(title=f"CPU seconds of one thread, images × {REGIONS} × {DIM}")
    steps = list(next(iter(measured.values())))
    for name in ("images", *steps):
        table.add_column(name, justify="right")
    for count, values in measured.items():
        table.add_row(f"{count:,}", *(f"{values[step]:g}" for step in steps))
    return table


def draw(measured: dict[int, dict[str, float]]) -> None:
    """Write the plot, with straight lines through the largest size."""
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    # Text as text, and the same bytes for the same numbers.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "scale"})
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    counts = list(measured)
    for step in ("open", "one query", "80 queries", "one round"):
        values = [measured[count][step] for count in counts]
        (line,) = axes.loglog(counts, values, "o", label=step)
        straight = [values[-1] * count / counts[-1] for count in counts]
        axes.loglog(counts, straight, ":", color=line.get_color())
    axes.set_xlabel(f"images ({REGIONS} regions × {DIM}); dotted: proportional to images")
    axes.set_ylabel("CPU seconds")
    axes.legend()
    figure.savefig(RESULTS / "scale.svg", metadata={"Date": None})
    plt.close(figure)


def test_recall_and_time_of_databases_beside_exact(tmp_path: Path) -> None:
    """LanceDB and Milvus Lite, and an index of faiss."""
    for package in ("lancedb", "faiss", "pymilvus", "milvus_lite"):
        pytest.importorskip(package)
    write_index(tmp_path / "index", SIZES[0])
    queries = Directions().encode_texts(NAMES).numpy()[:8]
    expected = open_index(tmp_path / "index", verify=False).search(queries, 100).image_rows
    table = Table(title=f"{SIZES[0]:,} images, 8 queries one after the other, top 100")
    for name in ("backend", "made, CPU s", "a query, CPU s", "recall"):
        table.add_column(name, justify="right")
    recall = {}
    for backend in ("exact", "faiss:ivfpq", "lance", f"milvus:{tmp_path / 'milvus.db'}"):
        start = time.process_time()
        index = open_index(tmp_path / "index", verify=False, backend=backend)
        made, start = time.process_time() - start, time.process_time()
        found = [index.search(query[None], 100).image_rows[0] for query in queries]
        each = (time.process_time() - start) / len(queries)
        hits = [np.isin(one, best).mean() for one, best in zip(found, expected, strict=True)]
        name = backend.partition(":/")[0]
        recall[name] = float(np.mean(hits))
        table.add_row(name, f"{made:.1f}", f"{each:.3f}", f"{recall[name]:.3f}")
    Console(width=120).print(table)
    assert recall["exact"] == 1
    assert recall["lance"] > 0.9  # random directions are the hardest case

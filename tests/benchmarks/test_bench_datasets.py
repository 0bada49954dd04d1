"""Time and peak memory of reading a large LVIS-like file, compared with pycocotools.

``HARDMINE_BENCH_BOXES`` sets the number of boxes, a million by default; 10_000_000 gives 1.2 M
images and a file of 8 GB. pycocotools is skipped above ``HARDMINE_BENCH_PEER`` boxes (a million),
where it needs tens of GB.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BOXES = int(os.environ.get("HARDMINE_BENCH_BOXES", "1_000_000"))
PEER_BOXES = int(os.environ.get("HARDMINE_BENCH_PEER", "1_000_000"))
CLASSES = 1203
BOXES_AN_IMAGE = 8.4
# Vertices of a mask, such that the file is as large as LVIS v1 train: 1.1 GB for 1.27 M boxes.
VERTICES = 45

# Peak memory of the child process; ru_maxrss would start at the parent's.
MEASURE = """
import json, sys, time
from pathlib import Path
{imports}
def status(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1]) / 1e3
before, start = status("VmRSS"), time.perf_counter()
{statement}
seconds = time.perf_counter() - start
print("\\n" + json.dumps([seconds, status("VmHWM") - before, status("VmRSS") - before, count]))
"""
HARDMINE = MEASURE.format(
    imports="from hardmine.datasets import load_images, coco",
    statement="images = load_images(sys.argv[1], check_files=False)\ncount = len(images.instances)",
)
PEER = MEASURE.format(
    imports="from pycocotools.coco import COCO",
    statement="images = COCO(sys.argv[1])\ncount = len(images.anns)",
)


def write_lvis(path: Path, boxes: int, seed: int = 0) -> None:
    """Write a file in LVIS's format and order: annotations first, then images."""
    rng = np.random.default_rng(seed)
    images = max(int(boxes / BOXES_AN_IMAGE), 1)
    outline = ", ".join(f"{number:.2f}" for number in rng.uniform(0, 480, 2 * VERTICES))
    with path.open("w") as file:
        file.write('{"info": {"description": "LVIS-like"}, "annotations": [')
        for first in range(0, boxes, 100_000):
            count = min(100_000, boxes - first)
            rows = zip(
                rng.integers(1, images + 1, count).tolist(),
                rng.integers(1, CLASSES + 1, count).tolist(),
                rng.uniform(0, 300, (count, 2)).round(2).tolist(),
                rng.uniform(1, 150, (count, 2)).round(2).tolist(),
                strict=True,
            )
            file.write(", " if first else "")
            file.write(
                ", ".join(
                    f'{{"bbox": [{x}, {y}, {w}, {h}], "category_id": {category}, "image_id": '
                    f'{image}, "id": {first + row + 1}, "segmentation": [[{outline}]], '
                    f'"area": {w * h / 2:.2f}}}'
                    for row, (image, category, (x, y), (w, h)) in enumerate(rows)
                )
            )
        file.write('], "images": [')
        file.write(
            ", ".join(
                f'{{"id": {row}, "width": 640, "height": 480, "license": 1, "flickr_url": '
                f'"http://farm9.staticflickr.com/8186/{row}_z.jpg", "coco_url": '
                f'"http://images.cocodataset.org/train2017/{row:012}.jpg", "neg_category_ids": '
                f'[{row % CLASSES + 1}, {row * 7 % CLASSES + 1}], "not_exhaustive_category_ids": '
                f'[{row * 3 % CLASSES + 1}], "date_captured": "2013-11-14 17:02:52"}}'
                for row in range(1, images + 1)
            )
        )
        categories = [
            {
                **{"id": row, "name": f"class_{row}", "synonyms": [f"class_{row}", f"kind {row}"]},
                **{"synset": "a.n.01", "frequency": "rcf"[row % 3], "def": "a thing"},
            }
            for row in range(1, CLASSES + 1)
        ]
        file.write(f'], "categories": {json.dumps(categories)}}}')


def measure(program: str, path: Path) -> tuple[float, float, float, int]:
    """Run a program in a new process; seconds, peak MB, remaining MB and number of boxes."""
    command = [sys.executable, "-c", program, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, peak, kept, count = json.loads(done.stdout.splitlines()[-1])
    return seconds, peak, kept, count


@pytest.mark.benchmark
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's memory counters")
def test_a_large_lvis_file(tmp_path: Path) -> None:
    path = tmp_path / "lvis_v1_train.json"
    write_lvis(path, BOXES)
    size = path.stat().st_size / 1e6
    millions = BOXES / 1e6
    print(
        f"\nLVIS-like file: {BOXES / BOXES_AN_IMAGE:,.0f} images, {BOXES:,} boxes, {size:,.0f} MB\n"
        f"{'':24}{'seconds':>9}{'MB/s':>8}{'peak MB':>10}{'peak MB a million boxes':>26}"
    )
    rows = {"hardmine": measure(HARDMINE, path)}
    if BOXES <= PEER_BOXES:
        rows["json + pycocotools"] = measure(PEER, path)
    path.unlink()
    for name, (seconds, peak, _, count) in rows.items():
        assert count == BOXES
        print(f"{name:24}{seconds:9.1f}{size / seconds:8.0f}{peak:10,.0f}{peak / millions:26,.0f}")
    if "json + pycocotools" in rows:
        (own, own_peak, *_), (peer, peer_peak, *_) = rows.values()
        print(f"{'ratio':24}{peer / own:9.1f}{'':8}{peer_peak / own_peak:10.1f}")
        assert peer > own
        assert peer_peak > 4 * own_peak

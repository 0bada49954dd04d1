"""The sampler against torch's own, at ten million images."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from hardmine.sampler import HardMiningSampler

pytestmark = pytest.mark.benchmark


def seconds(run: Callable[[], Iterable[int]], repeats: int = 3) -> tuple[float, float]:
    """Make a stream and go through all of it: wall and processor seconds, best of several.

    Processor seconds add the threads up; other work on the machine hardly lengthens them.
    """
    wall = processor = float("inf")
    for _ in range(repeats):
        start = time.perf_counter(), time.process_time()
        deque(run(), maxlen=0)
        wall = min(wall, time.perf_counter() - start[0])
        processor = min(processor, time.process_time() - start[1])
    return wall, processor


def new_weights(num_images: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(1, 4, num_images)


def test_new_weights_and_a_whole_epoch() -> None:
    print("\nnew weights + every image of an epoch as a Python integer; wall (processor) seconds")
    print(
        f"{'images':>12} {'hardmine':>15} {'Weighted':>15} {'Random':>15} {'Weighted / ours':>17}"
    )
    for num_images in (100_000, 1_000_000, 10_000_000):
        weights = new_weights(num_images)
        sampler = HardMiningSampler(num_images)

        def ours(sampler: HardMiningSampler = sampler, new: np.ndarray = weights) -> Iterable[int]:
            sampler.set_weights(new)
            return sampler

        def theirs(new: np.ndarray = weights) -> Iterable[int]:
            return WeightedRandomSampler(torch.from_numpy(new), len(new))

        def plain(size: int = num_images) -> Iterable[int]:
            return RandomSampler(range(size))

        # Above 2^24 images WeightedRandomSampler would refuse.
        repeats = max(3, 2_000_000 // num_images)
        times = [seconds(run, repeats) for run in (ours, theirs, plain)]
        ratio = times[1][0] / times[0][0]
        cells = "".join(f"{wall:>8.3f} ({processor:.2f})".rjust(16) for wall, processor in times)
        print(f"{num_images:>12,}{cells} {ratio:>16.1f}x")
        assert ratio > 1
    # On any machine: a plain shuffle by torch, which weighs nothing, is the least that it takes.
    assert times[0][1] <= 3 * times[2][1]


# The program's own memory: ru_maxrss would begin with that of the parent.
MEMORY = """
from pathlib import Path
import numpy as np
from hardmine.sampler import HardMiningSampler

def kilobytes(key):
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(key)).split()[1])

sampler = HardMiningSampler(10)
sampler.set_weights(np.ones(10))
list(sampler)
weights = np.random.default_rng(0).uniform(1, 4, 20_000_000)
before = kilobytes("VmRSS")
sampler = HardMiningSampler(len(weights))
sampler.set_weights(weights)
next(iter(sampler))
print((kilobytes("VmHWM") - before) * 1024 / weights.nbytes)
"""


def test_memory_is_a_small_multiple_of_the_weights() -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], check=True, capture_output=True, text=True
    )
    multiple = float(done.stdout)
    print(f"\n20 M images: peak memory of an epoch is {multiple:.1f} times the weights' own")
    assert multiple < 8


def test_a_rank_of_eight_draws_its_share_sooner() -> None:
    weights = new_weights(2_000_000)
    whole, share = (HardMiningSampler(len(weights), rank=0, world_size=size) for size in (1, 8))
    for sampler in (whole, share):
        sampler.set_weights(weights)
    alone, eighth = seconds(lambda: whole)[1], seconds(lambda: share)[1]
    print(f"\n2 M images: {alone:.3f} s alone, {eighth:.3f} s as one of eight ranks")
    assert eighth < alone

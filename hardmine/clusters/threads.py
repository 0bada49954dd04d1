"""Images shared out among the processor's threads, each with operations of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

T = TypeVar("T")


def share_out(work: Callable[[slice], T], count: int) -> list[T]:
    """Do a piece of work for every run of images, as many runs as torch uses threads.

    Operations on one image's patches are too small to be worth splitting; images are not. Results
    come in the order of the images.

    Args:
        work: Does the images of a slice; knows nothing of gradients.
        count: Images in all.
    """
    threads = torch.get_num_threads()
    runs = min(threads, count)
    if runs < 2:
        return [work(slice(0, count))]
    bounds = [count * run // runs for run in range(runs + 1)]
    slices = [slice(*pair) for pair in pairwise(bounds)]
    try:
        with ThreadPoolExecutor(
            runs, thread_name_prefix="share", initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(work, slices))
    finally:
        # What a thread sets for itself is also what later threads of the process begin with.
        torch.set_num_threads(threads)

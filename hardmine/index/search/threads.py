"""Runs a function over shared items in several threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
# Each thread needs the GIL now and then; more threads would wait for it.
_MAX_THREADS = 8


def run_in_threads(
    work: Callable[[Iterator[Item]], object],
    items: Iterable[Item],
    *,
    max_threads: int = _MAX_THREADS,
) -> None:
    """Call ``work`` in several threads, each with an iterator over the shared items.

    torch's threads are divided among the calls. A thread that does all steps of an item keeps its
    values in its own cache and never waits for another. torch's own threads meet after every
    operation, which is slow when other processes use the cores too.

    Args:
        work: Called with an iterator that ends when all items are taken. Must not call
            ``run_in_threads`` itself.
        items: Only one thread at a time advances it.
        max_threads: Largest number of threads.
    """
    total = torch.get_num_threads()
    count = min(total, max_threads, _MAX_THREADS)
    if count <= 1:
        work(iter(items))
        return
    shared = _SharedIterator(items)
    ready = threading.Barrier(count + 1)

    def start() -> None:
        # torch initializes a thread at its first call and then overwrites what was set before.
        torch.get_num_threads()
        torch.set_num_threads(total // count)
        ready.wait()

    def run() -> None:
        try:
            work(shared)
        finally:
            # After an error in one thread, the others end too.
            shared.close()

    with ThreadPoolExecutor(count, "search", start) as pool:
        try:
            calls = [pool.submit(run) for _ in range(count)]
            ready.wait()
        except BaseException:
            ready.abort()
            raise
        finally:
            # The setting is per thread, but threads that start later take the last value set.
            torch.set_num_threads(total)
        try:
            for call in calls:
                call.result()
        finally:
            shared.close()


class _SharedIterator(Iterator[Item]):
    """An iterator that several threads may advance."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)

    def close(self) -> None:
        """End the iteration for all threads."""
        with self._lock:
            self._items = iter(())

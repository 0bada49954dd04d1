"""Spreads the blocks of a search over threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
# Each takes Python's lock now and then; more of them would wait for it.
_MOST = 8


def run_in_threads(
    work: Callable[[Iterator[Item]], object], items: Iterable[Item], *, most: int = _MOST
) -> None:
    """Call ``work`` in several threads, each with an iterator over its part of the items.

    The parts are taken as they come. torch's threads are divided among the calls: one that goes
    through all steps of an item finds its numbers in its own cache and never waits for another,
    whereas torch's own threads meet after every operation, which is slow where other processes
    want the cores too.

    Args:
        work: Called with items until there are none; must not share out work itself.
        items: Drawn from by one thread at a time.
        most: Threads there is enough to do for.
    """
    total = torch.get_num_threads()
    count = min(total, most, _MOST)
    if count <= 1:
        work(iter(items))
        return
    shared = _Shared(items)
    ready = threading.Barrier(count + 1)

    def start() -> None:
        # torch sets a thread up when it is first asked; what is set before is lost then.
        torch.get_num_threads()
        torch.set_num_threads(total // count)
        ready.wait()

    def run() -> None:
        try:
            work(shared)
        finally:
            # An error in one thread ends the others.
            shared.close()

    with ThreadPoolExecutor(count, "search", start) as pool:
        try:
            calls = [pool.submit(run) for _ in range(count)]
            ready.wait()
        except BaseException:
            ready.abort()
            raise
        finally:
            # The number is each thread's own, but threads that start later take the last one set.
            torch.set_num_threads(total)
        try:
            for call in calls:
                call.result()
        finally:
            shared.close()


class _Shared(Iterator[Item]):
    """An iterator that threads may draw from together."""

    def __init__(self, items: Iterable[Item]) -> None:
        self._items = iter(items)
        self._lock = threading.Lock()

    def __next__(self) -> Item:
        with self._lock:
            return next(self._items)

    def close(self) -> None:
        """Give nothing more."""
        with self._lock:
            self._items = iter(())

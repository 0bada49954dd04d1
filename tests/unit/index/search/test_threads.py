"""Items shared among threads: each once, no error lost, torch's thread count restored."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch

from hardmine.index.search.threads import run_in_threads


@pytest.fixture(params=[1, 2, 5, 20])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def test_each_item_once(threads: int) -> None:
    seen: list[int] = []
    run_in_threads(seen.extend, range(1000))
    assert sorted(seen) == list(range(1000))
    assert torch.get_num_threads() == threads


def test_no_items(threads: int) -> None:
    run_in_threads(lambda items: pytest.fail("an item appeared") if list(items) else None, [])


def test_torchs_threads_are_divided(threads: int) -> None:
    used: list[int] = []
    run_in_threads(lambda _: used.append(torch.get_num_threads()), [])
    assert threads // 2 < sum(used) <= threads
    assert len(set(used)) == 1


def test_threads_started_later_have_torchs_full_thread_count(threads: int) -> None:
    run_in_threads(lambda _: None, [])
    later: list[int] = []
    thread = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    assert later == [threads]


def test_an_error_ends_all(threads: int) -> None:
    taken: list[int] = []

    def work(items: Iterator[int]) -> None:
        for item in items:
            taken.append(item)
            if item == 7:
                raise ValueError("seven")

    def endless() -> Iterator[int]:
        number = 0
        while True:
            yield number
            number += 1

    with pytest.raises(ValueError, match="seven"):
        run_in_threads(work, endless())
    assert torch.get_num_threads() == threads


def test_max_threads(threads: int) -> None:
    names: set[str] = set()
    run_in_threads(lambda _: names.add(threading.current_thread().name), [], max_threads=0)
    assert names == {threading.current_thread().name}

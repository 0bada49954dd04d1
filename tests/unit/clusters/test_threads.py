from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from hardmine.clusters import cluster
from hardmine.clusters.threads import share_out
from hardmine.errors import InputError


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def elsewhere(work: Callable[[], int]) -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def test_each_share_has_a_thread_and_order_is_kept(threads: Callable[[int], None]) -> None:
    threads(3)
    shares = share_out(lambda run: (run.start, run.stop, torch.get_num_threads()), 8)
    assert shares == [(0, 2, 1), (2, 5, 1), (5, 8, 1)]
    assert share_out(lambda run: run, 0) == [slice(0, 0)]
    assert share_out(lambda run: run.stop, 2) == [1, 2]
    threads(1)
    assert share_out(lambda run: run, 8) == [slice(0, 8)]


def test_torch_keeps_its_threads(threads: Callable[[int], None]) -> None:
    threads(3)

    def fail(run: slice) -> None:
        raise InputError("no")

    with pytest.raises(InputError):
        share_out(fail, 8)
    assert torch.get_num_threads() == 3
    assert elsewhere(torch.get_num_threads) == 3


@pytest.mark.parametrize("spec", ["kmeans:4", "agglomerative:k=4", "tree:2/5", "pyramid:3"])
def test_regions_are_the_same_on_any_number_of_threads(
    threads: Callable[[int], None], spec: str
) -> None:
    draw = torch.Generator().manual_seed(5)
    patches = F.normalize(torch.randn(7, 6, 5, 33, generator=draw), dim=-1).requires_grad_()
    found = []
    for count in (1, 2, 4, 16):
        threads(count)
        found.append(cluster(patches, spec))
    for regions in found[1:]:
        for name in ("vectors", "image_rows", "boxes", "mass"):
            assert torch.equal(getattr(regions, name), getattr(found[0], name))
            assert not getattr(regions, name).requires_grad

"""Clusters on a GPU: the same regions, and the host waits a few times for a batch."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from fake_device import FakeDevice

from hardmine.clusters import cluster
from hardmine.errors import InputError

# How often the host may wait for a batch of 32.
WAITS = {
    "whole": 1,
    "none+whole": 2,
    "pyramid:3": 3,
    "kmeans:10,context=0.4+whole": 4,
    "kmeans:3/6,context=0.4+whole": 4,
    "agglomerative:k=20": 5,
    "agglomerative:t=0.05,linkage=ward": 6,
    "tree:3/6+whole": 6,
}


def patches(batch: int = 32, side: int = 7, dim: int = 16) -> torch.Tensor:
    """Four noisy parts each; the first image is all zeros, and one patch cancels another."""
    generator = torch.Generator().manual_seed(0)
    parts = torch.randn(batch, 4, dim, generator=generator)
    place = torch.arange(side) // (side // 2 + 1)
    grid = parts[:, 2 * place[:, None] + place]
    grid = F.normalize(grid + 0.4 * torch.randn(grid.shape, generator=generator), dim=-1)
    grid[0] = 0
    grid[1] = grid[1, 0, 0]
    grid[2, :, ::2] = -grid[2, 0, 1]
    grid[2, :, 1::2] = grid[2, 0, 1]
    return grid


@pytest.mark.parametrize("spec", WAITS)
def test_regions_are_those_of_the_cpu(spec: str) -> None:
    # Of equal distances, a GPU may merge another first.
    given = patches()[3 if spec.startswith(("agglomerative", "tree")) else 0 :]
    whole = given.mean((1, 2)) + 0.1
    expected = cluster(given, spec, whole=whole)
    with FakeDevice() as device:
        found = cluster(given.to(device.device), spec, whole=whole.to(device.device))
        # Vectors that cancel are looked for one by one: the first images have some.
        for name in ("vectors", "image_rows", "boxes", "mass"):
            assert torch.equal(getattr(found, name).cpu(), getattr(expected, name)), name


@pytest.mark.parametrize("spec", WAITS)
def test_the_host_waits_a_few_times_for_a_batch(spec: str) -> None:
    given = patches()[3:]
    whole = given.mean((1, 2))
    with FakeDevice() as device:
        sent = given.to(device.device), whole.to(device.device)
        cluster(sent[0], spec, whole=sent[1])  # sends the random numbers of the seed, once
        device.reset()
        cluster(sent[0], spec, whole=sent[1])
        assert len(device.waits) <= WAITS[spec], device.waits


def test_a_patch_that_is_not_finite_is_named() -> None:
    given = patches()
    given[5, 1, 1, 0] = torch.nan
    with FakeDevice() as device, pytest.raises(InputError, match="patches of image 5"):
        cluster(given.to(device.device), "kmeans:3")


def test_an_image_settles_as_it_does_alone() -> None:
    given = patches(4, side=9)
    with FakeDevice() as device:
        together = cluster(given.to(device.device), "kmeans:7", labels=True).labels
        alone = [
            cluster(image[None].to(device.device), "kmeans:7", labels=True).labels
            for image in given
        ]
        assert together is not None
        for image, labels in zip(together.cpu(), alone, strict=True):
            assert labels is not None
            assert torch.equal(image, labels.cpu()[0])

"""Clustering: independence of the batch, partitions, edge cases and errors."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hardmine.clusters import cluster
from hardmine.errors import InputError

SPECS = [
    "whole",
    "none",
    "kmeans:4",
    "kmeans:2/5,context=0.4+whole",
    "agglomerative:k=4",
    "agglomerative:t=0.5,linkage=complete",
    "agglomerative:k=4,linkage=ward",
    "pyramid:3",
    "tree:2/5+whole",
]
PARTITIONS = [spec for spec in SPECS if spec[0] in "nka" and "/" not in spec]


def textured(batch: int, height: int = 5, width: int = 7, dim: int = 37) -> torch.Tensor:
    draw = torch.Generator().manual_seed(11)
    shared = torch.randn(batch, 1, width, dim, generator=draw)
    own = torch.randn(batch, height, width, dim, generator=draw)
    return F.normalize(shared + own, dim=-1)


def wholes(batch: int, dim: int = 37) -> torch.Tensor:
    return F.normalize(torch.randn(batch, dim, generator=torch.Generator().manual_seed(3)), dim=-1)


@pytest.mark.parametrize("spec", SPECS)
def test_no_images_give_no_regions(spec: str) -> None:
    regions = cluster(torch.zeros(0, 5, 7, 16), spec, whole=torch.zeros(0, 16), labels=True)
    assert regions.vectors.shape == (0, 16)
    assert regions.image_rows.shape == (0,)
    assert regions.boxes.shape == (0, 4)
    assert regions.mass.shape == (0,)


@pytest.mark.parametrize("spec", SPECS)
def test_an_image_does_not_depend_on_its_batch(spec: str) -> None:
    patches, whole = textured(17), wholes(17)
    together = cluster(patches, spec, whole=whole)
    for rows in ([0], [16], [3, 4], [9, 2, 16], [16, 15, 14, 13, 12, 11, 10, 9, 8]):
        # Also as a strided view: the memory layout must not matter.
        apart = cluster(patches[rows], spec, whole=whole[rows])
        for place, row in enumerate(rows):
            here, there = apart.image_rows == place, together.image_rows == row
            for name in ("vectors", "boxes", "mass"):
                assert torch.equal(getattr(apart, name)[here], getattr(together, name)[there])


@pytest.mark.parametrize("spec", PARTITIONS)
def test_vectors_masses_and_boxes_of_a_partition(spec: str) -> None:
    patches = textured(4)
    regions = cluster(patches, spec, labels=True)
    assert regions.labels is not None
    assert regions.labels.shape == (4, 5, 7)
    region = 0
    for row in range(4):
        labels = regions.labels[row]
        seen = []
        for name in range(int(labels.max()) + 1):
            inside = labels == name
            mean = patches[row][inside].double().mean(0)
            torch.testing.assert_close(regions.vectors[region], F.normalize(mean, dim=0).float())
            rows, columns = inside.nonzero(as_tuple=True)
            box = [columns.min() / 7, rows.min() / 5, (columns.max() + 1) / 7, (rows.max() + 1) / 5]
            torch.testing.assert_close(regions.boxes[region], torch.stack(box))
            torch.testing.assert_close(regions.mass[region], inside.float().mean())
            assert regions.image_rows[region] == row
            seen.append(int(inside.flatten().nonzero()[0]))
            region += 1
        assert seen == sorted(seen)  # numbered in reading order
    assert region == len(regions)


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 6), (6, 1), (2, 2)])
def test_small_grids(spec: str, height: int, width: int) -> None:
    patches, whole = textured(3, height, width), wholes(3)
    regions = cluster(patches, spec, whole=whole)
    assert torch.equal(regions.image_rows.unique(), torch.arange(3))
    torch.testing.assert_close(regions.vectors.norm(dim=1), torch.ones(len(regions)))


@pytest.mark.parametrize("spec", SPECS)
def test_all_patches_equal(spec: str) -> None:
    one = F.normalize(torch.arange(1.0, 38), dim=0)
    patches = one.expand(2, 5, 7, -1)
    regions = cluster(patches, spec, whole=one.expand(2, -1), labels=True)
    torch.testing.assert_close(regions.vectors, one.expand(len(regions), -1))
    if spec.startswith("kmeans:4"):
        assert len(regions) == 2  # only one distinct patch


@pytest.mark.parametrize("spec", PARTITIONS)
def test_k_of_one_and_of_every_patch(spec: str) -> None:
    if "k=4" not in spec and ":4" not in spec:
        pytest.skip("has no k")
    patches = textured(2)
    one = cluster(patches, spec.replace("4", "1"))
    expected = F.normalize(patches.flatten(1, 2).double().mean(1), dim=1).float()
    torch.testing.assert_close(one.vectors, expected)
    for k in ("35", "99"):
        every = cluster(patches, spec.replace("4", k))
        torch.testing.assert_close(every.vectors, patches.flatten(0, 2))


@pytest.mark.parametrize("spec", SPECS)
def test_zero_vectors_match_nothing_and_do_not_affect_others(spec: str) -> None:
    patches, whole = textured(3), wholes(3)
    patches[1] = 0
    patches[2, :2] = 0
    regions = cluster(patches, spec, whole=whole)
    assert torch.isfinite(regions.vectors).all()
    lengths = regions.vectors.norm(dim=1)
    assert ((lengths - 1).abs().minimum(lengths) < 1e-5).all()
    alone = cluster(patches[:1], spec, whole=whole[:1])
    assert torch.equal(alone.vectors, regions.vectors[regions.image_rows == 0])


def test_the_mean_of_opposite_patches_is_the_first() -> None:
    up = F.one_hot(torch.tensor(0), 8).float()
    patches = torch.stack([torch.zeros(8), up, -up, torch.zeros(8)]).view(1, 2, 2, 8)
    regions = cluster(patches, "agglomerative:k=1")
    assert torch.equal(regions.vectors, up[None])
    assert cluster(torch.zeros(1, 2, 2, 8), "pyramid:1").vectors.abs().sum() == 0


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_is_an_error_that_names_the_image(spec: str, bad: float) -> None:
    patches, whole = textured(3), wholes(3)
    patches[1, 2, 3, 4] = bad
    with pytest.raises(InputError, match=r"patches of b\.jpg contain NaN or infinity"):
        cluster(patches, spec, whole=whole, names=["a.jpg", "b.jpg", "c.jpg"])
    with pytest.raises(InputError, match="image 1 of the batch"):
        cluster(patches, spec, whole=whole)


def test_whole_is_the_last_region_and_must_be_given() -> None:
    patches, whole = textured(2), 3 * wholes(2)
    regions = cluster(patches, "kmeans:3+whole", whole=whole, labels=True)
    assert regions.image_rows.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]
    torch.testing.assert_close(regions.vectors[3::4], whole / 3)
    assert regions.boxes[3::4].tolist() == [[0, 0, 1, 1]] * 2
    assert regions.mass[3::4].tolist() == [1, 1]
    assert regions.labels is not None
    assert regions.labels.max() == 2
    for spec in ("whole", "kmeans:3+whole", "none:context=1"):
        with pytest.raises(InputError, match="needs whole-image vectors"):
            cluster(patches, spec)
        with pytest.raises(InputError, match="got shape"):
            cluster(patches, spec, whole=whole[:1])


def test_context_adds_the_whole_image_vector() -> None:
    patches, whole = textured(2), wholes(2)
    plain = cluster(patches, "kmeans:3")
    leaning = cluster(patches, "kmeans:3,context=0.5+whole", whole=whole)
    expected = F.normalize(plain.vectors + 0.5 * whole[plain.image_rows], dim=1)
    parts = torch.tensor([0, 1, 2, 4, 5, 6])
    torch.testing.assert_close(leaning.vectors[parts], expected)
    assert torch.equal(leaning.boxes[parts], plain.boxes)
    torch.testing.assert_close(leaning.vectors[[3, 7]], whole)


def test_half_precision_patches_are_accepted() -> None:
    patches = textured(2).half()
    regions = cluster(patches, "kmeans:4")
    assert regions.vectors.dtype == torch.float32
    assert torch.equal(regions.vectors, cluster(patches.float(), "kmeans:4").vectors)


def test_patches_must_be_a_grid() -> None:
    with pytest.raises(InputError, match=r"must be \(B, H, W, D\), got shape \(2, 35, 37\)"):
        cluster(textured(2).flatten(1, 2), "none")

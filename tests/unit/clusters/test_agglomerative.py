"""Agglomerative clustering against scikit-learn in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import AgglomerativeClustering

from hardmine.clusters import cluster
from hardmine.clusters.agglomerative import dendrogram
from hardmine.clusters.gram import gram
from hardmine.clusters.mutual import mutual_dendrogram
from hardmine.clusters.regions import in_reading_order

HEIGHT, WIDTH = 7, 9
LINKAGES = ["average", "complete", "ward"]


def textured(batch: int, seed: int = 0) -> torch.Tensor:
    """Patches with structure along the columns, without ties."""
    draw = torch.Generator().manual_seed(seed)
    shared = torch.randn(batch, 1, WIDTH, 24, generator=draw)
    own = torch.randn(batch, HEIGHT, WIDTH, 24, generator=draw)
    return torch.nn.functional.normalize(shared + own, dim=-1)


def reference(patches: torch.Tensor, linkage: str, **stop: float) -> np.ndarray:
    model = AgglomerativeClustering(
        **{"n_clusters": None, **stop},
        metric="euclidean" if linkage == "ward" else "cosine",
        linkage=linkage,
    )
    return model.fit_predict(patches.flatten(0, 1).double().numpy())


def same_partition(one: np.ndarray, other: np.ndarray) -> bool:
    pairs = len(set(zip(one.tolist(), other.tolist(), strict=True)))
    return pairs == len(set(one.tolist())) == len(set(other.tolist()))


@pytest.mark.parametrize("linkage", LINKAGES)
def test_partitions_equal_scikit_learn_s(linkage: str) -> None:
    patches = textured(4)
    for k in (1, 2, 5, 12, 30, 62, 63):
        labels = cluster(patches, f"agglomerative:k={k},linkage={linkage}", labels=True).labels
        assert labels is not None
        for image, got in zip(patches, labels, strict=True):
            expected = reference(image, linkage, n_clusters=k)
            assert same_partition(expected, got.flatten().numpy()), k
    numbers = set()
    for t in (0.3, 0.5, 0.7, 0.9, 1.1, 1.5, 2.5):
        labels = cluster(patches, f"agglomerative:t={t},linkage={linkage}", labels=True).labels
        assert labels is not None
        for image, got in zip(patches, labels, strict=True):
            expected = reference(image, linkage, distance_threshold=t)
            assert same_partition(expected, got.flatten().numpy()), t
            numbers.add(int(got.max()) + 1)
    assert len(numbers) > 5  # the thresholds give many different cuts


@pytest.mark.parametrize("linkage", LINKAGES)
def test_parallel_merging_gives_scipy_s_tree(linkage: str) -> None:
    cosines = gram(textured(5, seed=1).flatten(1, 2))
    step_by_step, at_once = dendrogram(cosines, linkage), mutual_dendrogram(cosines, linkage)
    for k in range(1, HEIGHT * WIDTH + 1):
        cuts = [in_reading_order(tree.cut(k)) for tree in (step_by_step, at_once)]
        assert torch.equal(*cuts), k
    heights = [tree.height.sort().values.float() for tree in (step_by_step, at_once)]
    torch.testing.assert_close(*heights, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("linkage", LINKAGES)
def test_parallel_merging_ends_if_all_distances_are_equal(linkage: str) -> None:
    equal = torch.ones(2, 30, 30)
    equal[1] = torch.eye(30)
    tree = mutual_dendrogram(equal, linkage)
    for k in (1, 7, 30):
        assert [len(set(names.tolist())) for names in tree.cut(k)] == [k, k]


def test_tree_drops_duplicate_clusters() -> None:
    patches = textured(3)
    regions = cluster(patches, "tree:2/5/9,linkage=complete")
    for row in range(3):
        expected = set()
        for k in (2, 5, 9):
            names = reference(patches[row], "complete", n_clusters=k)
            expected |= {tuple(np.flatnonzero(names == name)) for name in range(k)}
        got = regions.vectors[regions.image_rows == row]
        flat = patches[row].flatten(0, 1).double()
        means = torch.stack([flat[list(group)].mean(0) for group in expected])
        means = torch.nn.functional.normalize(means, dim=1).float()
        assert len(got) == len(expected)
        # Each region is the mean of a different cluster.
        similar = got @ means.T
        assert (similar.max(1).values > 1 - 1e-6).all()
        assert len(set(similar.argmax(1).tolist())) == len(expected)

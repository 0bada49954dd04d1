"""k-means against scikit-learn's KMeans on the same unit vectors."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.cluster import KMeans

from hardmine.clusters import cluster


def scenes(batch: int, height: int = 8, width: int = 8, dim: int = 64) -> torch.Tensor:
    """Patches of images with a few soft-edged objects each, like an encoder's."""
    draw = torch.Generator().manual_seed(5)
    things = torch.randn(batch, 7, dim, generator=draw)
    share = torch.softmax(
        3
        * torch.nn.functional.interpolate(
            torch.randn(batch, 7, 3, 3, generator=draw), (height, width), mode="bilinear"
        ),
        dim=1,
    )
    patches = torch.einsum("bthw,btd->bhwd", share, things)
    noise = 0.5 * torch.randn(batch, height, width, dim, generator=draw)
    return torch.nn.functional.normalize(patches + noise, dim=-1)


def inertia(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Sum of squared distances to the cluster means, which KMeans minimises."""
    return sum(
        float(((vectors[labels == name] - vectors[labels == name].mean(0)) ** 2).sum())
        for name in np.unique(labels)
    )


def test_inertia_is_as_low_as_scikit_learn_s() -> None:
    patches = scenes(60)
    labels = cluster(patches, "kmeans:10", labels=True).labels
    assert labels is not None
    ours, theirs = [], []
    for image, got in zip(patches.double(), labels, strict=True):
        vectors = image.flatten(0, 1).numpy()
        ours.append(inertia(vectors, got.flatten().numpy()))
        theirs.append(KMeans(10, n_init=1, random_state=0).fit(vectors).inertia_)
    assert np.mean(ours) <= 1.02 * np.mean(theirs)


def test_no_cluster_is_empty() -> None:
    for k in (1, 2, 10, 40, 63, 64, 200):
        labels = cluster(scenes(6), f"kmeans:{k}", labels=True).labels
        assert labels is not None
        for image in labels:
            assert image.unique().tolist() == list(range(min(k, 64)))


def test_each_patch_is_in_its_nearest_cluster() -> None:
    patches = scenes(4)
    regions = cluster(patches, "kmeans:6", labels=True)
    assert regions.labels is not None
    for row in range(4):
        centres = regions.vectors[regions.image_rows == row].double()
        flat = patches[row].flatten(0, 1).double()
        similar = flat @ centres.T
        own = similar.gather(1, regions.labels[row].flatten()[:, None])[:, 0]
        # The precision of the grid that k-means uses.
        assert (similar.max(1).values - own).max() < 1e-3


def test_in_larger_images_up_to_one_percent_of_patches_may_differ() -> None:
    patches = scenes(20, height=16, width=16)
    regions = cluster(patches, "kmeans:10", labels=True)
    assert regions.labels is not None
    shares = []
    for row in range(20):
        centres = regions.vectors[regions.image_rows == row].double()
        similar = patches[row].flatten(0, 1).double() @ centres.T
        own = similar.gather(1, regions.labels[row].flatten()[:, None])[:, 0]
        shares.append(float((similar.max(1).values - own > 1e-3).double().mean()))
    assert 0 < max(shares) <= 0.01


def test_fewer_distinct_patches_than_k_give_fewer_regions() -> None:
    three = torch.eye(16)[[0, 3, 7]]
    patches = three[torch.arange(12) % 3].view(1, 3, 4, 16)
    regions = cluster(patches, "kmeans:10", labels=True)
    assert len(regions) == 3
    assert torch.equal(regions.vectors, three)
    assert torch.equal(regions.mass, torch.full((3,), 1 / 3))


def test_the_seed_changes_the_result() -> None:
    patches = scenes(8)
    first, again, other = (cluster(patches, "kmeans:9", seed=seed) for seed in (1, 1, 2))
    assert torch.equal(first.vectors, again.vectors)
    assert not torch.equal(first.vectors, other.vectors)

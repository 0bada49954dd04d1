"""Properties of every clustering: partitions are complete, the order of images does not matter."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hardmine.clusters import cluster, parse_spec

counts = st.integers(1, 40)
linkages = st.sampled_from(["", ",linkage=complete", ",linkage=ward"])
partitions = st.one_of(
    st.just("none"),
    st.builds("kmeans:{}".format, counts),
    st.builds("agglomerative:k={}{}".format, counts, linkages),
    st.builds("agglomerative:t={}{}".format, st.floats(0.01, 2), linkages),
)
overlapping = st.one_of(
    st.builds("pyramid:{}".format, st.integers(1, 4)),
    st.builds("tree:{}/{}{}".format, counts, counts, linkages),
    st.builds("kmeans:{}/{},context=0.5".format, counts, counts),
)


@st.composite
def batches(draw: st.DrawFn) -> torch.Tensor:
    """Batches of unit patches, some equal, some opposite, some zero."""
    batch, height, width = draw(st.tuples(*[st.integers(1, 5)] * 3))
    seed, kinds = draw(st.integers(0, 2**16)), draw(st.integers(1, 12))
    random = np.random.default_rng(seed)
    palette = random.normal(size=(kinds, 6))
    palette /= np.linalg.norm(palette, axis=1, keepdims=True)
    patches = palette[random.integers(0, kinds, (batch, height, width))]
    patches *= random.choice([1, 1, 1, -1, 0], (batch, height, width, 1))
    return torch.from_numpy(patches).float()


@given(batches(), partitions)
@settings(max_examples=60)
def test_every_patch_belongs_to_exactly_one_region(patches: torch.Tensor, spec: str) -> None:
    regions = cluster(patches, spec, labels=True)
    assert regions.labels is not None
    assert (regions.labels >= 0).all()
    for row, labels in enumerate(regions.labels):
        numbers, sizes = labels.unique(return_counts=True)
        mass = regions.mass[regions.image_rows == row]
        assert numbers.tolist() == list(range(len(mass)))
        torch.testing.assert_close(mass, sizes / labels.numel())
        torch.testing.assert_close(mass.sum(), torch.tensor(1.0))
        limit = parse_spec(spec).option("k")
        if isinstance(limit, int):
            assert len(mass) == min(limit, labels.numel())
        if isinstance(limit, tuple):
            assert len(mass) <= min(limit[0], labels.numel())


@given(batches(), st.one_of(partitions, overlapping), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_permuting_images_permutes_their_regions(patches, spec, random) -> None:  # type: ignore[no-untyped-def]
    whole = torch.ones(len(patches), patches.shape[3])
    order = list(range(len(patches)))
    random.shuffle(order)
    straight = cluster(patches, spec, whole=whole)
    shuffled = cluster(patches[order], spec, whole=whole)
    for place, row in enumerate(order):
        here, there = shuffled.image_rows == place, straight.image_rows == row
        assert torch.equal(shuffled.vectors[here], straight.vectors[there])
        assert torch.equal(shuffled.boxes[here], straight.boxes[there])
        assert torch.equal(shuffled.mass[here], straight.mass[there])


@given(batches(), st.one_of(partitions, overlapping))
@settings(max_examples=60)
def test_regions_are_unit_vectors_in_the_image(patches: torch.Tensor, spec: str) -> None:
    whole = torch.ones(len(patches), patches.shape[3])
    regions = cluster(patches, spec, whole=whole)
    assert (regions.image_rows.diff() >= 0).all()
    assert torch.equal(regions.image_rows.unique(), torch.arange(len(patches)))
    lengths = regions.vectors.norm(dim=1)
    # A region of zero vectors is zero.
    assert ((lengths - 1).abs().minimum(lengths) < 1e-5).all()
    assert (regions.boxes[:, :2] < regions.boxes[:, 2:]).all()
    assert ((regions.boxes >= 0) & (regions.boxes <= 1)).all()
    assert ((regions.mass > 0) & (regions.mass <= 1)).all()

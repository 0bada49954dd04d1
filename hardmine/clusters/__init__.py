"""Cluster-CLIP: reduces an image's patches to a few unit vectors, its regions.

Benchmark on 730 COCO photos with 80 class names and 13 × 13 patches of a small text-aligned
encoder: mAP@50 in percent, for all objects and for small and medium ones. Options were chosen on
one half of the photos and confirmed on the other.

===================================  =======  ======  ============
spec                                 vectors  mAP@50  small-medium
===================================  =======  ======  ============
whole                                      1    26.6          10.3
none                                     169    23.8          11.7
agglomerative:k=50                        50    25.5          12.3
kmeans:10                                 10    30.4          14.0
kmeans:10+whole                           11    31.8          14.1
pyramid:6                                 91    32.0          14.5
tree:3/6+whole                           9.2    33.0          13.7
kmeans:3/6+whole                          10    33.6          14.9
kmeans:10,context=0.4+whole               11    34.0          16.1
kmeans:3/6,context=0.4+whole              10    34.8          15.5
pyramid:6,context=0.4                     91    34.5          14.8
===================================  =======  ======  ============

The seed changes k-means by up to 1.3: seeds 0 to 7 give 28.7 to 30.5 for kmeans:10, 32.4 to 33.8
for kmeans:3/6+whole and 33.7 to 35.0 with context=0.4.

Few large regions are better than many small ones, whose means are noisy and whose maximum is
therefore unreliable. Two sizes together are better than either. Adding a share of the whole-image
vector (``context``) improves every spec. Images full of small objects differ: on generated scenes
with ``tiny``, kmeans:10+whole reaches 72.9, with context=0.4 75.3, and kmeans:3/6,context=0.4+whole
only 70.5. Tried and rejected: distance on the grid as part of the similarity (kmeans:10 loses up to
0.9), merging none but adjacent patches (tree:3/6 loses 7.4, agglomerative:k=10 3.9), more than two
sizes, cells and clusters together (34.6 with 40 vectors and context).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from hardmine.clusters.agglomerative import dendrogram
from hardmine.clusters.boxes import box_regions
from hardmine.clusters.gram import cosine_grid, gram
from hardmine.clusters.kmeans import kmeans_labels
from hardmine.clusters.pyramid import pyramid_groups
from hardmine.clusters.regions import (
    add_context,
    groups_of,
    in_reading_order,
    regions_of,
    whole_regions,
    with_whole,
)
from hardmine.clusters.spec import ClusterSpec, parse_spec
from hardmine.errors import InputError
from hardmine.records import Regions

__all__ = ["ClusterSpec", "cluster", "parse_spec"]

# Methods that compute a matrix of cosines, in which one bad patch shows in every row.
_COSINE_METHODS = ("kmeans", "agglomerative", "tree")


@torch.no_grad()
def cluster(
    patches: Tensor,
    spec: str | ClusterSpec,
    *,
    whole: Tensor | None = None,
    seed: int = 0,
    labels: bool = False,
    boxes: Sequence[Tensor] | None = None,
    names: Sequence[str] | None = None,
) -> Regions:
    """Turn each image's patches into regions.

    An image's regions depend only on its own patches, the spec and the seed, not on the batch or
    the position in it.

    Args:
        patches: (B, H, W, D) unit vectors.
        spec: The clustering, e.g. ``"kmeans:10+whole"``; see ``hardmine.clusters.spec``.
        whole: (B, D) whole-image vectors, for specs that use them.
        seed: Seed of k-means; other methods are deterministic.
        labels: Also return each patch's region, if regions do not overlap.
        boxes: For ``"boxes"``: B tensors (n, 4), xyxy as shares of the image's width and height.
        names: B names of the images, for error messages.

    Returns:
        Regions grouped by image; the whole-image vector is the last of an image.

    Raises:
        InputError: If a shape is wrong, a vector is not finite, or an input that the spec needs
            is missing.
    """
    spec = parse_spec(spec)
    if patches.ndim != 4:
        raise InputError(f"patches must be (B, H, W, D), got shape {tuple(patches.shape)}")
    if not len(patches):
        return whole_regions(patches.new_zeros(0, patches.shape[3], dtype=torch.float32))
    patches = patches.float()
    # A sum includes every entry and costs one pass.
    sums = {}
    if spec.method not in _COSINE_METHODS:
        sums["patches"] = patches.flatten(1).sum(1)
    if spec.whole or spec.method == "whole" or spec.context:
        if whole is None or whole.shape != (len(patches), patches.shape[3]):
            got = "none" if whole is None else f"shape {tuple(whole.shape)}"
            raise InputError(
                f'clusters "{spec}" needs whole-image vectors '
                f"(expected whole of shape {(len(patches), patches.shape[3])}, got {got})"
            )
        whole = whole.to(patches.device).float()
        sums["whole"] = whole.sum(1)
    if spec.method not in _COSINE_METHODS:
        _require_finite(sums, names)
        if whole is not None and spec.method == "whole":
            return whole_regions(whole)
    parts = _parts(patches, spec, sums, seed=seed, labels=labels, boxes=boxes, names=names)
    if whole is None:
        return parts
    if spec.context:
        parts = add_context(parts, whole, spec.context)
    return with_whole(parts, whole) if spec.whole else parts


def _parts(
    patches: Tensor,
    spec: ClusterSpec,
    sums: dict[str, Tensor],
    *,
    seed: int,
    labels: bool,
    boxes: Sequence[Tensor] | None,
    names: Sequence[str] | None,
) -> Regions:
    batch, height, width, _ = patches.shape
    if spec.method == "boxes":
        if boxes is None:
            raise InputError('clusters "boxes" needs boxes: one (n, 4) tensor for each image')
        return box_regions(patches, boxes, names=names)
    if spec.method == "pyramid":
        groups = pyramid_groups(batch, height, width, spec.count("levels"), patches.device)
        return regions_of(patches, groups)
    cuts = [in_reading_order(cut) for cut in _partitions(patches, spec, sums, seed, names)]
    regions = regions_of(patches, groups_of(cuts, _counts(spec, height * width)))
    if labels and len(cuts) == 1:
        return replace(regions, labels=cuts[0].view(batch, height, width))
    return regions


def _counts(spec: ClusterSpec, patches: int) -> list[int] | None:
    """Largest number of clusters in each partition, where the spec says it."""
    if spec.method == "none":
        return [patches]
    if spec.option("t") is not None:
        return None
    return [min(k, patches) for k in spec.counts("k")]


def _partitions(
    patches: Tensor,
    spec: ClusterSpec,
    sums: dict[str, Tensor],
    seed: int,
    names: Sequence[str] | None,
) -> list[Tensor]:
    """Partitions of the patches, (B, P) int64 each: any id for each cluster."""
    batch, height, width, _ = patches.shape
    if spec.method == "none":
        return [torch.arange(height * width, device=patches.device).expand(batch, -1)]
    cosines = (cosine_grid if spec.method == "kmeans" else gram)(patches.flatten(1, 2))
    _require_finite({"patches": cosines[:, 0].sum(1), **sums}, names)
    if spec.method == "kmeans":
        return [kmeans_labels(cosines, k, seed=seed) for k in spec.counts("k")]
    tree = dendrogram(cosines, str(spec.option("linkage")))
    threshold = spec.option("t")
    if isinstance(threshold, float):
        return [tree.cut_at(threshold)]
    return [tree.cut(k) for k in spec.counts("k")]


def _require_finite(sums: dict[str, Tensor], names: Sequence[str] | None) -> None:
    """Raise an error for the first image with NaN or infinity in a sum, (B,) of each input."""
    finite = torch.stack([torch.isfinite(values) for values in sums.values()])
    if bool(finite.all()):
        return
    kind, row = (int(place) for place in (~finite).nonzero()[0])
    name = f"image {row} of the batch" if names is None else names[row]
    raise InputError(
        f"{list(sums)[kind]} of {name} contain NaN or infinity; is the image broken, "
        "or does the encoder overflow in half precision?"
    )

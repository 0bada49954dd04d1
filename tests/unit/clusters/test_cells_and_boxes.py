"""Pyramid against adaptive average pooling, boxes against bilinear sampling in a loop."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from hardmine.clusters import cluster
from hardmine.errors import InputError


def patches_of(batch: int, height: int, width: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(2)
    return F.normalize(torch.randn(batch, height, width, 20, generator=draw), dim=-1)


@pytest.mark.parametrize(("height", "width"), [(13, 13), (6, 6), (5, 8), (1, 1), (2, 7)])
def test_pyramid_equals_adaptive_average_pooling(height: int, width: int) -> None:
    patches = patches_of(2, height, width)
    regions = cluster(patches, "pyramid:6")
    assert len(regions) == 2 * 91
    planes = patches.permute(0, 3, 1, 2).double()
    pooled = [F.adaptive_avg_pool2d(planes, level).flatten(2).mT for level in range(1, 7)]
    expected = F.normalize(torch.cat(pooled, dim=1), dim=-1).flatten(0, 1).float()
    torch.testing.assert_close(regions.vectors, expected)
    assert regions.image_rows.tolist() == [0] * 91 + [1] * 91
    assert regions.boxes[0].tolist() == [0, 0, 1, 1]
    assert regions.mass[0] == 1


def test_boxes_of_pyramid_cells() -> None:
    regions = cluster(patches_of(1, 4, 6), "pyramid:2")
    assert regions.boxes.tolist() == [
        [0, 0, 1, 1],
        [0, 0, 0.5, 0.5],
        [0.5, 0, 1, 0.5],
        [0, 0.5, 0.5, 1],
        [0.5, 0.5, 1, 1],
    ]
    assert regions.mass.tolist() == [1, 0.25, 0.25, 0.25, 0.25]


def test_a_box_along_patch_edges_is_the_mean_of_its_patches() -> None:
    patches = patches_of(2, 4, 8)
    boxes = [torch.tensor([[0.25, 0.5, 0.75, 1.0], [0, 0, 1, 1]]), torch.tensor([[0, 0, 0.25, 1]])]
    regions = cluster(patches, "boxes", boxes=boxes)
    assert regions.image_rows.tolist() == [0, 0, 1]
    assert torch.equal(regions.boxes, torch.cat(boxes).float())
    assert regions.mass.tolist() == [0.25, 1, 0.25]


def bilinear(plane: torch.Tensor, y: float, x: float) -> torch.Tensor:
    """One bilinear sample of (H, W, D); the centre of patch i is at i."""
    height, width, _ = plane.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = int(y), int(x)
    bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
    down, across = y - top, x - left
    upper = plane[top, left] * (1 - across) + plane[top, right] * across
    lower = plane[bottom, left] * (1 - across) + plane[bottom, right] * across
    return upper * (1 - down) + lower * down


def test_a_box_is_the_mean_of_bilinear_samples() -> None:
    import math

    patches = patches_of(1, 6, 9)
    box = [0.13, 0.22, 0.71, 0.93]
    got = cluster(patches, "boxes", boxes=[torch.tensor([box])]).vectors[0]
    left, top, right, bottom = box[0] * 9, box[1] * 6, box[2] * 9, box[3] * 6
    rows, columns = math.ceil(bottom - top), math.ceil(right - left)
    samples = [
        bilinear(
            patches[0].double(),
            top - 0.5 + (row + 0.5) * (bottom - top) / rows,
            left - 0.5 + (column + 0.5) * (right - left) / columns,
        )
        for row in range(rows)
        for column in range(columns)
    ]
    expected = F.normalize(torch.stack(samples).mean(0), dim=0).float()
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_images_without_boxes_have_no_regions() -> None:
    patches, whole = patches_of(3, 4, 4), torch.eye(3, 20)
    boxes = [torch.zeros(0, 4), torch.tensor([[0.2, 0.2, 0.2, 0.9]]), torch.zeros(0, 4)]
    regions = cluster(patches, "boxes+whole", boxes=boxes, whole=whole)
    assert regions.image_rows.tolist() == [0, 1, 1, 2]
    assert regions.mass.tolist() == [1, 0, 1, 1]
    torch.testing.assert_close(regions.vectors.norm(dim=1), torch.ones(4))


def test_boxes_are_clipped_to_the_image() -> None:
    patches = patches_of(1, 4, 4)
    beyond, inside = torch.tensor([[-1.0, -1, 0.5, 2]]), torch.tensor([[0.0, 0, 0.5, 1]])
    cut, given = (cluster(patches, "boxes", boxes=[boxes]) for boxes in (beyond, inside))
    assert torch.equal(cut.vectors, given.vectors)
    assert torch.equal(cut.boxes, given.boxes)


@pytest.mark.parametrize(
    ("boxes", "message"),
    [
        (None, "needs boxes"),
        ([torch.zeros(0, 4)], "expected 2, got 1"),
        ([torch.tensor([[0.5, 0, 0.1, 1]]), torch.zeros(0, 4)], "boxes of first.jpg must be xyxy"),
        ([torch.tensor([[0, 0, 1, float("nan")]]), torch.zeros(0, 4)], "boxes of first.jpg"),
    ],
)
def test_invalid_boxes_are_an_error(boxes: list[torch.Tensor] | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster(patches_of(2, 3, 3), "boxes", boxes=boxes, names=["first.jpg", "second.jpg"])

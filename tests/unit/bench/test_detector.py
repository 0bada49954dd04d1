"""The small detector learns, and its targets lie where the boxes are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from hardmine.bench.detector import (
    STRIDES,
    LocationTargets,
    Outputs,
    SmallDetector,
    assign_targets,
    detection_loss,
)
from hardmine.bench.square_images import SquareImages
from hardmine.bench.training import Examples, Trainer
from hardmine.errors import InputError

SIDE = 64
LOCATIONS = sum((SIDE // stride) ** 2 for stride in STRIDES)


def squares(count: int, seed: int = 0) -> SquareImages:
    """Images of one or two bright squares in two colours on noise; the third image is empty."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (count, 3, SIDE, SIDE), dtype=np.uint8)
    boxes, class_rows, starts = [], [], [0]
    for row in range(count):
        for _ in range(0 if row == 2 else int(rng.integers(1, 3))):
            side = int(rng.integers(12, 30))
            left, top = rng.integers(0, SIDE - side, 2).tolist()
            class_row = int(rng.integers(2))
            pixels[row, 2 * class_row, top : top + side, left : left + side] = 250
            boxes.append([left, top, left + side, top + side])
            class_rows.append(class_row)
        starts.append(len(boxes))
    return SquareImages(
        torch.from_numpy(pixels),
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(class_rows),
        np.array(starts),
        np.full((count, 2), 2.0, np.float32),
    )


def test_a_location_gets_the_smallest_box_around_it_on_the_level_of_its_size() -> None:
    boxes = torch.tensor([[4.0, 4.0, 60.0, 60.0], [24.0, 24.0, 40.0, 40.0]])
    targets = assign_targets(boxes, torch.tensor([5, 7]), SIDE)
    fine, coarse = targets.class_rows.split([(SIDE // 8) ** 2, (SIDE // 16) ** 2])
    assert set(fine.tolist()) == {-1, 7}
    assert set(coarse.tolist()) == {-1, 5}
    # The four cells of each grid around the centre.
    assert np.argwhere(fine.view(8, 8).numpy() == 7).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    assert np.argwhere(coarse.view(4, 4).numpy() == 5).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    np.testing.assert_array_equal(targets.boxes[targets.class_rows == 7], boxes[[1]].expand(4, 4))


def test_a_box_smaller_than_a_cell_is_assigned() -> None:
    for left in np.linspace(0, 56, 57):
        box = torch.tensor([[left, 20.0, left + 3, 23.0]], dtype=torch.float32)
        assert (assign_targets(box, torch.tensor([0]), SIDE).class_rows == 0).any()


def test_an_image_without_boxes_is_background() -> None:
    targets = assign_targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), SIDE)
    assert targets.class_rows.tolist() == [-1] * LOCATIONS
    examples = Examples(squares(3))
    _, batch = examples.batch(torch.tensor([2]), torch.tensor([False]))
    assert batch.boxes.shape == (1, LOCATIONS, 4)
    outputs = Outputs(torch.zeros(1, LOCATIONS, 2, requires_grad=True), torch.ones(1, LOCATIONS, 4))
    assert torch.isfinite(detection_loss(outputs, batch))


def test_the_loss_of_perfect_outputs_is_zero() -> None:
    targets = assign_targets(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]), SIDE)
    batch = LocationTargets(targets.class_rows[None], targets.boxes.expand(LOCATIONS, 4)[None])
    right = torch.full((1, LOCATIONS, 2), -20.0)
    right[0, :, 1] = torch.where(targets.class_rows == 1, 20.0, -20.0)
    perfect = detection_loss(Outputs(right, batch.boxes), batch)
    assert perfect == pytest.approx(0, abs=1e-6)
    assert detection_loss(Outputs(right, batch.boxes + 4), batch) > 0.1
    assert detection_loss(Outputs(-right, batch.boxes), batch) > 1


def test_flipped_targets_are_those_of_the_flipped_image() -> None:
    images = squares(4)
    rows = torch.arange(4)
    pixels, targets = Examples(images).batch(rows, torch.tensor([True] * 4))
    mirrored = images.boxes.clone()
    mirrored[:, 0], mirrored[:, 2] = SIDE - images.boxes[:, 2], SIDE - images.boxes[:, 0]
    again = SquareImages(
        images.pixels.flip(3), mirrored, images.class_rows, images.starts, images.scales
    )
    expected_pixels, expected = Examples(again).batch(rows, torch.tensor([False] * 4))
    torch.testing.assert_close(pixels, expected_pixels)
    torch.testing.assert_close(targets.class_rows, expected.class_rows)
    torch.testing.assert_close(
        targets.boxes[targets.class_rows >= 0], expected.boxes[targets.class_rows >= 0]
    )


def test_it_learns_to_find_squares_in_new_images() -> None:
    train_set, test_set = Examples(squares(160)), squares(20, seed=1)
    trainer = Trainer(2, side=SIDE, width=8, seed=0, batch_size=8)
    rows = torch.arange(160).repeat(8)
    first = trainer.train(train_set, rows[:160], lambda share: 4e-3)
    last = trainer.train(train_set, rows, lambda share: 4e-3 * (1 - share))
    assert last < first / 2
    found = trainer.detect(test_set)
    truth = test_set.boxes * 2  # of the image files, whose pixels are half as large
    right = 0
    for row in range(20):
        own = slice(*test_set.starts[row : row + 2].tolist())
        confident = (found.image_rows == row) & (found.scores > 0.3)
        overlaps = box_iou(truth[own], torch.from_numpy(found.boxes[confident]).float())
        same = test_set.class_rows[own, None] == torch.from_numpy(found.class_rows[confident])
        right += int(((overlaps > 0.5) & same).any(1).sum())
    assert right >= 0.8 * len(truth)


def test_a_fork_is_independent_and_reproducible() -> None:
    examples = Examples(squares(16))
    trainer = Trainer(2, side=SIDE, width=8, seed=3)
    rows = torch.arange(16)
    trainer.train(examples, rows, lambda share: 1e-3)
    state = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    again = Trainer(2, side=SIDE, width=8, seed=9)
    again.load_state_dict(trainer.state_dict())
    losses = {fork.train(examples, rows, lambda share: 1e-3) for fork in (trainer.fork(), again)}
    assert len(losses) == 1
    for name, value in trainer.model.state_dict().items():
        torch.testing.assert_close(value, state[name])


def test_a_side_that_strides_do_not_divide_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16 pixels, got 100"):
        SmallDetector(2, side=100)

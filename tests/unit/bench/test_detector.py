"""The small detector learns what it is shown, and its goals are where the boxes are."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.ops import box_iou

from hardmine.bench.detector import STRIDES, Answers, Goals, SmallDetector, loss_of, set_goals
from hardmine.bench.pictures import Pictures
from hardmine.bench.training import Examples, Training
from hardmine.errors import InputError

SIDE = 64
PLACES = sum((SIDE // stride) ** 2 for stride in STRIDES)


def squares(count: int, seed: int = 0) -> Pictures:
    """Bright squares of two colours, one or two a picture, on noise; the third shows nothing."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 60, (count, 3, SIDE, SIDE), dtype=np.uint8)
    boxes, class_rows, starts = [], [], [0]
    for row in range(count):
        for _ in range(0 if row == 2 else int(rng.integers(1, 3))):
            side = int(rng.integers(12, 30))
            left, top = rng.integers(0, SIDE - side, 2).tolist()
            kind = int(rng.integers(2))
            pixels[row, 2 * kind, top : top + side, left : left + side] = 250
            boxes.append([left, top, left + side, top + side])
            class_rows.append(kind)
        starts.append(len(boxes))
    return Pictures(
        torch.from_numpy(pixels),
        torch.tensor(boxes, dtype=torch.float32),
        torch.tensor(class_rows),
        np.array(starts),
        np.full((count, 2), 2.0, np.float32),
    )


def test_a_place_answers_for_the_smallest_box_around_it_on_the_level_of_its_size() -> None:
    boxes = torch.tensor([[4.0, 4.0, 60.0, 60.0], [24.0, 24.0, 40.0, 40.0]])
    goals = set_goals(boxes, torch.tensor([5, 7]), SIDE)
    fine, coarse = goals.class_rows.split([(SIDE // 8) ** 2, (SIDE // 16) ** 2])
    assert set(fine.tolist()) == {-1, 7}
    assert set(coarse.tolist()) == {-1, 5}
    # The four cells of each grid around the centre.
    assert np.argwhere(fine.view(8, 8).numpy() == 7).tolist() == [[3, 3], [3, 4], [4, 3], [4, 4]]
    assert np.argwhere(coarse.view(4, 4).numpy() == 5).tolist() == [[1, 1], [1, 2], [2, 1], [2, 2]]
    np.testing.assert_array_equal(goals.boxes[goals.class_rows == 7], boxes[[1]].expand(4, 4))


def test_a_box_smaller_than_a_cell_is_answered_for() -> None:
    for left in np.linspace(0, 56, 57):
        box = torch.tensor([[left, 20.0, left + 3, 23.0]], dtype=torch.float32)
        assert (set_goals(box, torch.tensor([0]), SIDE).class_rows == 0).any()


def test_a_picture_without_boxes_has_no_goals() -> None:
    goals = set_goals(torch.zeros(0, 4), torch.zeros(0, dtype=torch.int64), SIDE)
    assert goals.class_rows.tolist() == [-1] * PLACES
    examples = Examples(squares(3))
    _, batch = examples.batch(torch.tensor([2]), torch.tensor([False]))
    assert batch.boxes.shape == (1, PLACES, 4)
    answers = Answers(torch.zeros(1, PLACES, 2, requires_grad=True), torch.ones(1, PLACES, 4))
    assert torch.isfinite(loss_of(answers, batch))


def test_goals_that_are_met_cost_nothing_and_others_more() -> None:
    goals = set_goals(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]), SIDE)
    batch = Goals(goals.class_rows[None], goals.boxes.expand(PLACES, 4)[None])
    right = torch.full((1, PLACES, 2), -20.0)
    right[0, :, 1] = torch.where(goals.class_rows == 1, 20.0, -20.0)
    met = loss_of(Answers(right, batch.boxes), batch)
    assert met == pytest.approx(0, abs=1e-6)
    assert loss_of(Answers(right, batch.boxes + 4), batch) > 0.1
    assert loss_of(Answers(-right, batch.boxes), batch) > 1


def test_mirrored_goals_are_those_of_the_mirrored_picture() -> None:
    pictures = squares(4)
    rows = torch.arange(4)
    pixels, goals = Examples(pictures).batch(rows, torch.tensor([True] * 4))
    mirrored = pictures.boxes.clone()
    mirrored[:, 0], mirrored[:, 2] = SIDE - pictures.boxes[:, 2], SIDE - pictures.boxes[:, 0]
    again = Pictures(
        pictures.pixels.flip(3), mirrored, pictures.class_rows, pictures.starts, pictures.scales
    )
    same_pixels, same = Examples(again).batch(rows, torch.tensor([False] * 4))
    torch.testing.assert_close(pixels, same_pixels)
    torch.testing.assert_close(goals.class_rows, same.class_rows)
    torch.testing.assert_close(
        goals.boxes[goals.class_rows >= 0], same.boxes[goals.class_rows >= 0]
    )


def test_it_learns_to_find_squares_it_has_not_seen() -> None:
    seen, unseen = Examples(squares(160)), squares(20, seed=1)
    training = Training(2, side=SIDE, width=8, seed=0, batch_size=8)
    rows = torch.arange(160).repeat(8)
    first = training.learn(seen, rows[:160], lambda share: 4e-3)
    last = training.learn(seen, rows, lambda share: 4e-3 * (1 - share))
    assert last < first / 2
    found = training.detect(unseen)
    truth = unseen.boxes * 2  # of the image files, whose pixels are half as large
    right = 0
    for row in range(20):
        mine = slice(*unseen.starts[row : row + 2].tolist())
        sure = (found.image_rows == row) & (found.scores > 0.3)
        overlaps = box_iou(truth[mine], torch.from_numpy(found.boxes[sure]).float())
        same = unseen.class_rows[mine, None] == torch.from_numpy(found.class_rows[sure])
        right += int(((overlaps > 0.5) & same).any(1).sum())
    assert right >= 0.8 * len(truth)


def test_a_fork_goes_its_own_way_and_the_same_way_again() -> None:
    examples = Examples(squares(16))
    training = Training(2, side=SIDE, width=8, seed=3)
    rows = torch.arange(16)
    training.learn(examples, rows, lambda share: 1e-3)
    state = {name: value.clone() for name, value in training.model.state_dict().items()}
    again = Training(2, side=SIDE, width=8, seed=9)
    again.load_state_dict(training.state_dict())
    losses = {fork.learn(examples, rows, lambda share: 1e-3) for fork in (training.fork(), again)}
    assert len(losses) == 1
    for name, value in training.model.state_dict().items():
        torch.testing.assert_close(value, state[name])


def test_a_side_that_the_grids_do_not_fit_is_refused() -> None:
    with pytest.raises(InputError, match="multiple of 16, got 100"):
        SmallDetector(2, side=100)

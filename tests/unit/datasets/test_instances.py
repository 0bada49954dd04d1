"""Clipping boxes to their images and leaving out those without area."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardmine.datasets import instances as module
from hardmine.datasets.instances import make_instances
from hardmine.errors import InputError
from hardmine.records import Instances

SIZES = np.array([[40, 60], [0, 0]], np.int32)
INF, NAN = float("inf"), float("nan")


def make(
    boxes: list[list[float]], image_rows: list[int], **columns: npt.NDArray[np.float32]
) -> tuple[Instances, tuple[str, ...]]:
    return make_instances(
        np.array(image_rows, np.int32),
        np.zeros(len(boxes), np.int32),
        np.array(boxes, np.float64).reshape(-1, 4),
        SIZES,
        source="set.json",
        entry=lambda position: f"box {position}",
        **columns,  # type: ignore[arg-type]
    )


def test_no_boxes() -> None:
    made, notes = make([], [])
    assert len(made) == 0
    assert notes == ()


@pytest.mark.parametrize(
    ("box", "expected"),
    [
        ([0, 0, 60, 40], [0, 0, 60, 40]),
        ([-0.5, -1, 60.9, 41], [0, 0, 60, 40]),
        ([-30, 5, 30, 90], [0, 5, 30, 40]),
        ([59.5, 39.5, 70, 70], [59.5, 39.5, 60, 40]),
        ([60, 0, 70, 10], None),
        ([-9, 0, 0, 10], None),
        ([5, 5, 5, 9], None),
        ([9, 5, 5, 9], None),
        ([NAN, 5, 9, 9], None),
        ([-INF, 5, 9, INF], None),
    ],
    ids=str,
)
def test_one_box_in_an_image_of_40_by_60(box: list[float], expected: list[float] | None) -> None:
    good = [1.0, 1, 2, 2]
    made, notes = make([good, good, box], [0, 0, 0])
    assert made.boxes[2:].tolist() == ([] if expected is None else [expected])
    if expected is None:
        assert notes == ("left out 1 of 3 boxes without area inside their image: box 2",)
    else:
        far = np.abs(np.subtract(box, expected)).max() > 1
        assert len(notes) == far


def test_nothing_is_clipped_if_the_size_is_unknown() -> None:
    made, notes = make([[-5, 0, 1000, 2000], [0, 0, INF, 5], [1, 1, 2, 2]], [1, 1, 1])
    assert made.boxes.tolist() == [[-5, 0, 1000, 2000], [1, 1, 2, 2]]
    assert len(notes) == 1


def test_boxes_are_sorted_by_image_and_keep_the_file_s_order() -> None:
    boxes = [[row, row, row + 5, row + 5] for row in range(5)]
    made, _ = make(boxes, [1, 0, 1, 0, -1])
    assert made.image_rows.tolist() == [0, 0, 1, 1]
    assert made.ids.tolist() == [1, 3, 0, 2]


def test_areas_come_from_the_file_if_it_has_them() -> None:
    boxes = [[0, 0, 4, 5]] * 3
    made, _ = make(boxes, [0, 0, 0], areas=np.array([7, NAN, 0], np.float32))
    assert made.areas.tolist() == [7, 20, 20]


def test_if_most_boxes_are_outside_it_is_an_error() -> None:
    with pytest.raises(InputError, match=r"set\.json: 2 of 3 boxes .* the first is box 1;"):
        make([[1, 1, 2, 2], [70, 1, 80, 2], [90, 1, 99, 2]], [0, 0, 0])


@given(
    boxes=st.lists(
        st.lists(st.floats(-100, 100, width=32), min_size=4, max_size=4), min_size=1, max_size=30
    ),
    step=st.integers(1, 7),
)
def test_the_slice_size_does_not_change_the_result(boxes: list[list[float]], step: int) -> None:
    rows = [row % 2 for row in range(len(boxes))]
    # Enough valid boxes that the invalid ones are never the majority.
    good = [[1.0, 1, 2, 2]] * (len(boxes) + 1)
    whole, notes = make(boxes + good, rows + [0] * len(good))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_SLICE", step)
        sliced, same_notes = make(boxes + good, rows + [0] * len(good))
    assert notes == same_notes
    np.testing.assert_array_equal(sliced.boxes, whole.boxes)
    np.testing.assert_array_equal(sliced.ids, whole.ids)
    np.testing.assert_array_equal(sliced.areas, whole.areas)
    inside = whole.boxes[whole.image_rows == 0]
    assert (inside >= 0).all()
    assert (inside[:, [0, 2]] <= 60).all()
    assert (inside[:, [1, 3]] <= 40).all()
    assert (whole.boxes[:, 2:] > whole.boxes[:, :2]).all()

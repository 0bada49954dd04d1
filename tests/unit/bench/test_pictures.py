"""Pictures are squeezed to a square, and what is found on them comes back to the image's pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hardmine.bench.pictures import read_pictures
from hardmine.bench.training import Training
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances


def wide_and_tall(folder: Path) -> ImageSet:
    """A wide black image with a white right half, and a tall gray one with a crowd."""
    wide = np.zeros((40, 80, 3), np.uint8)
    wide[:, 40:] = 255
    Image.fromarray(wide).save(folder / "wide.png")
    Image.new("RGB", (32, 96), (90, 90, 90)).save(folder / "tall.png")
    return ImageSet(
        root=folder,
        ids=np.array([3, 5]),
        paths=("wide.png", "tall.png"),
        sizes=np.array([[40, 80], [96, 32]], np.int32),
        class_names=("half", "crowd"),
        class_ids=np.array([1, 2]),
        instances=Instances(
            np.array([0, 1, 1], np.int32),
            np.array([0, 1, 0], np.int32),
            np.array([[40, 0, 80, 40], [0, 0, 32, 96], [8, 48, 24, 96]], np.float32),
            np.ones(3, np.float32),
            np.array([False, True, False]),
            np.arange(3),
        ),
    )


def test_boxes_follow_the_picture_and_crowds_are_left_out(tmp_path) -> None:
    seen = []
    pictures = read_pictures(wide_and_tall(tmp_path), 16, on_image=lambda: seen.append(1))
    assert len(pictures) == len(seen) == 2
    assert pictures.side == 16
    assert pictures.boxes.tolist() == [[8, 0, 16, 16], [4, 8, 12, 16]]
    assert pictures.class_rows.tolist() == [0, 0]
    assert pictures.starts.tolist() == [0, 1, 2]
    assert pictures.scales.tolist() == [[5, 2.5], [2, 6]]
    assert pictures.pixels[0, :, :, :7].max() < 10
    assert pictures.pixels[0, :, :, 9:].min() > 245


def test_what_is_found_lies_inside_the_image_file(tmp_path) -> None:
    images = wide_and_tall(tmp_path)
    training = Training(2, side=32, width=8)
    torch.nn.init.constant_(training.model.classify.bias, 2.0)  # sees something everywhere
    found = training.detect(read_pictures(images, 32))
    assert set(found.image_rows.tolist()) == {0, 1}
    limits = images.sizes[found.image_rows][:, ::-1]
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= limits).all()
    # Not the square's sides but the file's.
    assert found.boxes[found.image_rows == 0, 2].max() > 64
    assert found.boxes[found.image_rows == 1, 3].max() > 64


def test_a_set_without_labels_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="learns from labels"):
        read_pictures(replace(wide_and_tall(tmp_path), instances=None), 16)

"""Images are resized to squares; detections come back in pixels of the image file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from hardmine.bench.square_images import read_square_images
from hardmine.bench.training import Trainer
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


def test_boxes_are_scaled_and_crowds_are_left_out(tmp_path) -> None:
    done = []
    squares = read_square_images(wide_and_tall(tmp_path), 16, on_image=lambda: done.append(1))
    assert len(squares) == len(done) == 2
    assert squares.side == 16
    assert squares.boxes.tolist() == [[8, 0, 16, 16], [4, 8, 12, 16]]
    assert squares.class_rows.tolist() == [0, 0]
    assert squares.starts.tolist() == [0, 1, 2]
    assert squares.scales.tolist() == [[5, 2.5], [2, 6]]
    assert squares.pixels[0, :, :, :7].max() < 10
    assert squares.pixels[0, :, :, 9:].min() > 245


def test_detections_are_in_pixels_of_the_image_file(tmp_path) -> None:
    images = wide_and_tall(tmp_path)
    trainer = Trainer(2, side=32, width=8)
    torch.nn.init.constant_(trainer.model.classify.bias, 2.0)  # detects something everywhere
    found = trainer.detect(read_square_images(images, 32))
    assert set(found.image_rows.tolist()) == {0, 1}
    limits = images.sizes[found.image_rows][:, ::-1]
    assert (found.boxes[:, :2] >= 0).all()
    assert (found.boxes[:, 2:] <= limits).all()
    # Beyond the square, so not in its pixels.
    assert found.boxes[found.image_rows == 0, 2].max() > 64
    assert found.boxes[found.image_rows == 1, 3].max() > 64


def test_a_set_without_labels_is_refused(tmp_path) -> None:
    with pytest.raises(InputError, match="learns from labels"):
        read_square_images(replace(wide_and_tall(tmp_path), instances=None), 16)

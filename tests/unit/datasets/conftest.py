"""Fixtures that write small data sets in the real formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ImageWriter = Callable[..., Path]


@pytest.fixture
def image_file(tmp_path: Path) -> ImageWriter:
    """Writes an image of the given height and width below ``tmp_path``."""

    def write(name: str, height: int = 40, width: int = 60) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shades = np.linspace(0, 255, height * width * 3).astype(np.uint8)
        Image.fromarray(shades.reshape(height, width, 3)).save(path)
        return path

    return write


@pytest.fixture
def coco(tmp_path: Path, image_file: ImageWriter) -> Callable[..., Path]:
    """Writes two images of 60 × 40 and a COCO file; its members can be replaced."""

    def write(name: str = "annotations/instances_train2017.json", **members: Any) -> Path:
        for row in (1, 2):
            image_file(f"train2017/{row}.png")
        content = {
            "info": {"description": 'a "quoted" {brace} and \\'},
            "images": [
                {"id": 10, "file_name": "1.png", "width": 60, "height": 40},
                {"id": 20, "file_name": "2.png", "width": 60, "height": 40},
            ],
            "annotations": [
                {
                    **{"id": 1, "image_id": 20, "category_id": 7, "bbox": [1, 2, 10, 20]},
                    **{"area": 150.5, "segmentation": [[1.5, 2.5, 3.5, 4.5, 5.5, 6.5]]},
                },
                {
                    **{"id": 2, "image_id": 10, "category_id": 3, "bbox": [0, 0, 60, 40]},
                    **{"iscrowd": 1, "segmentation": {"counts": [7, 2400], "size": [40, 60]}},
                },
                {"id": 3, "image_id": 20, "category_id": 3, "bbox": [5.5, 6.25, 1.5, 2]},
            ],
            "categories": [{"id": 7, "name": "dog"}, {"id": 3, "name": "traffic light"}],
        }
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({**content, **members}))
        return path

    return write

"""The nuImages reader on small tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardmine.datasets import load_images
from hardmine.errors import InputError

ImageWriter = Callable[..., Path]


def frame(token: str, name: str, key: bool = True) -> dict[str, Any]:
    return {
        **{"token": token, "sample_token": "s", "ego_pose_token": "e", "filename": name},
        **{"calibrated_sensor_token": "c", "fileformat": "jpg", "width": 60, "height": 40},
        **{"timestamp": 1535657121653302, "is_key_frame": key, "prev": "", "next": ""},
    }


def annotation(token: str, sample_data: str, category: str, box: list[int]) -> dict[str, Any]:
    mask = {"size": [40, 60], "counts": "Yl5dMTB0MnMwMg=="}
    return {
        **{"token": token, "category_token": category, "bbox": box, "mask": mask},
        **{"attribute_tokens": [], "sample_data_token": sample_data},
    }


@pytest.fixture
def nuimages(tmp_path: Path, image_file: ImageWriter) -> Callable[..., Path]:
    """Writes two key frames, a sweep and three objects; tables can be replaced."""

    def write(version: str = "v1.0-mini", **tables: Any) -> Path:
        image_file("samples/CAM_BACK/a.jpg")
        image_file("samples/CAM_FRONT/b.jpg")
        full: dict[str, Any] = {
            "category": [
                {"token": "c0", "name": "flat.driveable_surface", "description": ""},
                {"token": "c1", "name": "vehicle.car", "description": ""},
                {"token": "c2", "name": "human.pedestrian.adult", "description": ""},
            ],
            "sample_data": [
                frame("b", "samples/CAM_FRONT/b.jpg"),
                frame("x", "sweeps/CAM_FRONT/x.jpg", key=False),
                frame("a", "samples/CAM_BACK/a.jpg"),
            ],
            "object_ann": [
                annotation("o0", "a", "c1", [1, 2, 11, 22]),
                annotation("o1", "b", "c2", [0, 0, 60, 40]),
                annotation("o2", "a", "c2", [5, 5, 6, 7]),
            ],
            **tables,
        }
        folder = tmp_path / version
        folder.mkdir()
        for name, records in full.items():
            (folder / f"{name}.json").write_text(json.dumps(records, indent=1))
        return tmp_path

    return write


def test_values(nuimages: Callable[..., Path]) -> None:
    root = nuimages()
    for images in (load_images(root), load_images(root / "v1.0-mini", "nuimages")):
        assert images.root == root
        assert images.ids.tolist() == ["b", "a"]
        assert images.paths == ("samples/CAM_FRONT/b.jpg", "samples/CAM_BACK/a.jpg")
        assert images.sizes.tolist() == [[40, 60]] * 2
        assert images.class_names == (
            *("flat.driveable_surface", "vehicle.car", "human.pedestrian.adult"),
        )
        assert images.instances is not None
        assert images.instances.image_rows.tolist() == [0, 1, 1]
        assert images.instances.class_rows.tolist() == [2, 1, 2]
        assert images.instances.ids.tolist() == [1, 0, 2]
        np.testing.assert_array_equal(
            images.instances.boxes, [[0, 0, 60, 40], [1, 2, 11, 22], [5, 5, 6, 7]]
        )
        assert images.class_counts.toarray().tolist() == [[0, 0, 1], [0, 1, 1]]


def test_a_data_set_without_objects(nuimages: Callable[..., Path]) -> None:
    images = load_images(nuimages("v1.0-test", object_ann=[]))
    assert len(images) == 2
    assert len(images.instances or ()) == 0


def test_several_versions_need_a_split(nuimages: Callable[..., Path]) -> None:
    nuimages("v1.0-train")
    root = nuimages("v1.0-val", object_ann=[])
    with pytest.raises(InputError, match=r"found v1\.0-train, v1\.0-val; pass split="):
        load_images(root)
    assert len(load_images(root, split="train").instances or ()) == 3


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"object_ann": [annotation("o0", "a", "c9", [0, 0, 1, 1])]},
            r"object_ann\.json: \[0\] o0 has the token 'c9', which is not in category\.json",
        ),
        (
            {"object_ann": [annotation("o0", "x", "c1", [0, 0, 1, 1])]},
            r"object_ann\.json: \[0\] o0 has the token 'x', which is not a key frame",
        ),
        (
            {"sample_data": [frame("a", "samples/CAM_BACK/a.jpg")] * 2},
            r"sample_data\.json: \[1\] has the same token a as \[0\]",
        ),
        (
            {"sample_data": [frame("a", "../a.jpg")], "object_ann": []},
            r"sample_data\.json: \[0\] a: the path '\.\./a\.jpg' leaves",
        ),
        (
            {"sample_data": [frame("a", "samples/none.jpg")], "object_ann": []},
            r"missing below .*samples/none\.jpg \(\[0\]\)",
        ),
        ({"category": [{"token": "c"}]}, r"category\.json.*missing required field `name`"),
        ({"category": {}}, r"category\.json: malformed JSON.*expected an array"),
    ],
)
def test_errors_name_the_file_and_the_entry(
    nuimages: Callable[..., Path], tables: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        load_images(nuimages(**tables))


def test_a_missing_table_is_named(nuimages: Callable[..., Path]) -> None:
    root = nuimages()
    (root / "v1.0-mini/category.json").unlink()
    with pytest.raises(InputError, match=r"category\.json: cannot be read"):
        load_images(root)

"""``hardmine scenes`` writes a data set that other tools can read."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hardmine.cli.main import main
from hardmine.datasets import load_images
from hardmine.scenes import NAMES, SCENE_COMMENT, generate_scene


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("scenes") / "set"
    options = ("--images", "40", "--seed", "5", "--missing", "0.2", "--wrong", "0.1", "--png")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(["scenes", str(out), *options, "--json"]) == 0
    return out, json.loads(printed.getvalue())


def test_the_summary_matches_the_files(written) -> None:
    out, summary = written
    assert summary["train"]["images"] == 32
    assert summary["val"]["images"] == 8
    assert summary["train"]["labels"] < summary["train"]["objects"]
    assert summary["val"]["labels"] == summary["val"]["objects"]
    assert len(list((out / "train" / "images").iterdir())) == 32


def test_pycocotools_finds_the_truth_of_every_scene(written, capsys) -> None:
    out, _ = written
    truth = COCO(str(out / "truth" / "train.json"))
    capsys.readouterr()
    assert [category["name"] for category in truth.loadCats(truth.getCatIds())] == list(NAMES)
    for image_id in truth.getImgIds():
        scene = generate_scene(5, image_id - 1)
        entry = truth.loadImgs(image_id)[0]
        assert entry["context"] == scene.context
        assert entry["captions"] == list(scene.captions)
        found = truth.loadAnns(truth.getAnnIds(imgIds=[image_id]))
        assert [thing["category_id"] - 1 for thing in found] == scene.class_rows.tolist()
        assert [thing["attributes"]["color"] for thing in found] == [
            thing.color for thing in scene.objects
        ]
        pixels = np.asarray(Image.open(out / entry["file_name"]))
        assert np.array_equal(pixels, scene.image)


def test_load_images_reads_a_split_with_label_errors(written) -> None:
    out, summary = written
    images = load_images(out, split="train")
    assert len(images) == 32
    assert images.class_names == NAMES
    assert images.instances is not None
    assert len(images.instances) == summary["train"]["labels"]
    assert images.path(0).is_file()
    val = load_images(out, split="val")
    assert set(val.ids.tolist()).isdisjoint(images.ids.tolist())


def test_image_files_carry_the_scene_comment(written, tmp_path) -> None:
    out, _ = written
    with Image.open(next((out / "val" / "images").iterdir())) as image:
        assert image.info["comment"] == SCENE_COMMENT
    assert main(["scenes", str(tmp_path / "jpg"), "--images", "2"]) == 0
    with Image.open(next((tmp_path / "jpg" / "val" / "images").iterdir())) as image:
        assert image.format == "JPEG"
        assert image.info["comment"] == SCENE_COMMENT.encode()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--images", "1"), "at least 2"),
        (("--val-share", "1"), "between 0 and 1"),
        (("--missing", "0.9", "--wrong", "0.2"), "at most 1"),
    ],
)
def test_a_wrong_option_is_an_error_and_writes_nothing(tmp_path, words, message, capsys) -> None:
    assert main(["scenes", str(tmp_path / "set"), *words]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_empty_is_refused(written, capsys) -> None:
    out, _ = written
    assert main(["scenes", str(out)]) == 2
    assert "is not an empty folder" in capsys.readouterr().err

"""``hardmine scenes`` writes a data set that other tools can read."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from hardmine.datasets import load_images
from hardmine.scenes import NAMES, SCENE_COMMENT, generate_scene


def hardmine(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "hardmine.cli.main", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    out = tmp_path_factory.mktemp("scenes") / "set"
    options = ("--images", "40", "--seed", "5", "--missing", "0.2", "--wrong", "0.1", "--png")
    done = hardmine("scenes", str(out), *options, "--json")
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


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
    assert hardmine("scenes", str(tmp_path / "jpg"), "--images", "2").returncode == 0
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
def test_a_wrong_option_is_an_error_and_writes_nothing(tmp_path, words, message) -> None:
    done = hardmine("scenes", str(tmp_path / "set"), *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "set").exists()


def test_a_folder_that_is_not_empty_is_refused(written) -> None:
    out, _ = written
    done = hardmine("scenes", str(out))
    assert done.returncode == 2
    assert "is not an empty folder" in done.stderr

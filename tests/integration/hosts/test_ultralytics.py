"""Ultralytics trains, mines and resumes: YOLO11 and YOLO26 from their configs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from host_scenes import BATCH_SIZE, BATCHES, NUM_IMAGES
from torch.utils.data import DistributedSampler

import hardmine
from hardmine.history import read_rounds
from hardmine.scenes import write_scenes

if importlib.util.find_spec("ultralytics") is None:
    pytest.skip("pip install 'hardmine[ultralytics]'", allow_module_level=True)

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Generated scenes with YOLO's label files and a data yaml."""
    root = tmp_path_factory.mktemp("yolo")
    write_scenes(root, num_images=NUM_IMAGES + 6, size=64)
    for split in ("train", "val"):
        images = hardmine.load_images(root, split=split)
        instances = images.instances
        assert instances is not None
        for row in range(len(images)):
            own = instances.image_rows == row
            height, width = images.sizes[row]
            boxes = instances.boxes[own] / [width, height, width, height]
            # Polygons serve detection, segmentation and turned boxes.
            lines = [
                f"{kind} {x1} {y1} {x2} {y1} {x2} {y2} {x1} {y2}\n"
                for kind, (x1, y1, x2, y2) in zip(
                    instances.class_rows[own].tolist(), boxes.tolist(), strict=True
                )
            ]
            file = Path(str(images.path(row)).replace("/images/", "/labels/")).with_suffix(".txt")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines))
            # Keypoints: two corners.
            lines = [
                f"{kind} {(x1 + x2) / 2} {(y1 + y2) / 2} {x2 - x1} {y2 - y1} {x1} {y1} {x2} {y2}\n"
                for kind, (x1, y1, x2, y2) in zip(
                    instances.class_rows[own].tolist(), boxes.tolist(), strict=True
                )
            ]
            file = root / "pose" / split / "labels" / file.name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("".join(lines))
        (root / "pose" / split / "images").symlink_to(root / split / "images")
    names = dict(enumerate(images.class_names))
    content = {"path": str(root), "train": "train/images", "val": "val/images", "names": names}
    (root / "data.yaml").write_text(yaml.safe_dump(content))
    content |= {"path": str(root / "pose"), "kpt_shape": [2, 2]}
    (root / "pose.yaml").write_text(yaml.safe_dump(content))
    return root


@pytest.fixture(scope="module")
def trained(data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """All trainings, in one process: their folder and what happened."""
    work = tmp_path_factory.mktemp("work")
    places = [str(SUPPORT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, places)),
        "YOLO_CONFIG_DIR": str(work),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
    }
    done = subprocess.run(
        [sys.executable, str(SUPPORT / "host_ultralytics.py"), str(data), str(work)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return work, json.loads((work / "results.json").read_text())


def shuffled_names(data: Path, epoch: int = 0) -> list[str]:
    """The images in torch's own seeded shuffle."""
    names = sorted(path.name for path in (data / "train" / "images").iterdir())
    plain = DistributedSampler(names, num_replicas=1, rank=0, seed=3)
    plain.set_epoch(epoch)
    return [names[row] for row in plain]


def weights_after(run: Path, epoch: int) -> np.ndarray:
    file = run / "hardmine" / "states" / f"epoch_{epoch}.pth"
    return torch.load(file, weights_only=True)["miner"]["weights"].numpy()


def test_the_very_next_epoch_is_drawn_by_the_new_weights(data, trained) -> None:
    work, results = trained
    batches = results["yolo11"]["batches"]
    assert len(batches) == 3 * BATCHES
    assert list(chain(*batches[:BATCHES])) == shuffled_names(data)
    names = sorted(shuffled_names(data))
    for epoch in (1, 2):
        weights = weights_after(work / "yolo11" / "run", epoch - 1)
        expected = NUM_IMAGES * weights / weights.sum()
        assert expected.max() > 1.05
        drawn = list(chain(*batches[epoch * BATCHES : (epoch + 1) * BATCHES]))
        counts = np.array([drawn.count(name) for name in names])
        assert (np.abs(counts - expected) < 1).all()
        logged = results["yolo11"]["logged"][epoch - 1]["hardmine/effective_size"]
        assert logged == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_two_processes_see_all_images_and_one_set_of_weights(data, trained) -> None:
    work, results = trained
    names = sorted(path.name for path in (data / "train" / "images").iterdir())
    # Each process gets half of a batch.
    first, second = (
        Counter(
            name for rank in results["ranks"] for batch in rank["batches"][part] for name in batch
        )
        for part in (slice(BATCHES), slice(BATCHES, 2 * BATCHES))
    )
    assert first == Counter(names)
    weights = weights_after(work / "ranks" / "run", 0)
    expected = NUM_IMAGES * weights / weights.sum()
    assert expected.max() > 1.05
    assert all(abs(second[name] - expected[row]) < 1 for row, name in enumerate(names))
    logged = results["ranks"][0]["logged"][0]["hardmine/effective_size"]
    assert logged == pytest.approx(weights.sum() ** 2 / (weights**2).sum())


def test_a_run_that_ended_early_resumes_with_the_same_images(trained) -> None:
    _, results = trained
    rest = results["rest"]["batches"]
    assert len(rest) == BATCHES
    assert rest == results["yolo11"]["batches"][2 * BATCHES :]


def test_two_processes_resume_with_the_same_images(trained) -> None:
    _, results = trained
    for whole, rest in zip(results["ranks"], results["ranks-rest"], strict=True):
        assert len(rest["batches"]) == BATCHES
        assert rest["batches"] == whole["batches"][BATCHES:]


@pytest.mark.parametrize("config", ["yolo11", "ranks", "yolo11-seg", "yolo11-obb", "yolo26-pose"])
def test_predicted_boxes_are_those_of_ultralytics_own_results_file(data, trained, config) -> None:
    work, results = trained
    file_names = sorted(path.name for path in (data / "val" / "images").iterdir())
    happened = results[config]
    for validation in (happened[0] if config == "ranks" else happened)["boxes"]:
        ours = [(row, kind, *box, score) for row, kind, score, box in validation["ours"]]
        theirs = []
        for found in validation["json"]:
            if config == "yolo11-obb":
                points = np.reshape(found["poly"], (4, 2)).clip(0, 64)
                corners = (*points.min(axis=0), *points.max(axis=0))
            else:
                x, y, width, height = found["bbox"]
                corners = (x, y, x + width, y + height)
            row = file_names.index(found["file_name"])
            theirs.append((row, found["category_id"] - 1, *corners, found["score"]))
        assert len(ours) > len(file_names)
        assert np.array(ours) == pytest.approx(np.array(theirs), abs=2e-3)
    [*_, last] = read_rounds(work / config / "run" / "hardmine" / "rounds.jsonl")
    assert last.inputs.ratios.density is not None


def test_a_retry_with_smaller_batches_draws_the_whole_epoch(data, trained) -> None:
    _, results = trained
    batches = results["yolo11-seg"]["batches"]
    assert [len(batch) for batch in batches] == [BATCH_SIZE] * 3 + [BATCH_SIZE // 2] * 2 * BATCHES
    assert list(chain(*batches[3:])) == shuffled_names(data)


def test_where_images_come_often_the_end_alone_is_drawn_by_weight(data, trained) -> None:
    work, results = trained
    batches = results["late"]["batches"]
    for epoch in range(2):
        drawn = batches[epoch * BATCHES : (epoch + 1) * BATCHES]
        assert list(chain(*drawn)) == shuffled_names(data, epoch)
    rounds = read_rounds(work / "late" / "run" / "hardmine" / "rounds.jsonl")
    assert [done.inputs.weights.look_alone for done in rounds] == [False, True, True]


def test_a_single_class_that_no_text_finds_is_said(trained) -> None:
    _, results = trained
    assert any("one class called 'item'" in line for line in results["late"]["warned"])
    assert not any("single_cls" in line for line in results["yolo11"]["warned"])


def test_a_failing_round_leaves_training_alone(data, trained) -> None:
    work, results = trained
    batches = results["failing"]["batches"]
    assert len(batches) == 2 * BATCHES
    assert list(chain(*batches[BATCHES:])) == shuffled_names(data, epoch=1)
    assert all("hardmine/effective_size" not in line for line in results["failing"]["logged"])
    first, _ = (work / "failing" / "run" / "hardmine" / "rounds.jsonl").read_text().splitlines()
    assert "mAP" in json.loads(first)["error"]


def test_the_last_validation_of_the_best_model_is_not_mined(trained) -> None:
    """After an early stop Ultralytics calls it another epoch."""
    work, results = trained
    rounds = read_rounds(work / "yolo11-seg" / "run" / "hardmine" / "rounds.jsonl")
    assert [done.number for done in rounds] == [1]
    assert len(results["yolo11-seg"]["logged"]) == 2


@pytest.mark.parametrize("task", ["segment", "pose"])
def test_ap_is_that_of_the_models_own_task(trained, task) -> None:
    """0.995 is Ultralytics' AP of a class without errors."""
    _, results = trained
    assert results["scores"][task] == {"cat": 0.0, "dog": pytest.approx(0.995)}


def test_what_cannot_be_mined_is_refused(trained) -> None:
    _, results = trained
    rect, val, task, version, twice = results["refused"]
    assert "train with rect=False" in rect
    assert "train with val=True" in val
    assert "task='classify' has no AP by class" in task
    assert "pip install 'ultralytics>=8.4.140'" in version
    assert "attached to this model already" in twice


def test_partners_are_drawn_by_weight(trained) -> None:
    _, results = trained
    assert results["partners"] == {"mosaic": [5, 5, 5], "mixup": 5}


def test_image_ids_are_those_of_the_yaml(data: Path) -> None:
    from hardmine_ultralytics.labels import read_dataset

    images = hardmine.load_images(data / "data.yaml")
    label = {"shape": (64, 64), "cls": [[0]], "bboxes": [[0.5, 0.5, 0.2, 0.2]]}
    labels = [{**label, "im_file": str(images.path(row))} for row in range(len(images))]
    dataset = SimpleNamespace(labels=[*labels, labels[0]])
    names = dict(enumerate(images.class_names))
    found, positions = read_dataset(dataset, names, data)
    assert found.ids.tolist() == images.ids.tolist()
    assert positions.tolist() == [*range(len(images)), 0]
    beside, _ = read_dataset(dataset, names, data / "pose")
    assert beside.ids.tolist() == images.ids.tolist()

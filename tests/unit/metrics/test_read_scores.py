"""Every format of per-class scores, as the trainers write it."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from hardmine.errors import InputError
from hardmine.metrics import read_scores
from hardmine.records import ClassScores

NAN = math.nan

# name, metrics, expected class -> AP
FORMATS: list[tuple[str, Any, dict[str, float]]] = [
    ("plain", {"person": 0.5, "fork": np.float32(0.25)}, {"person": 0.5, "fork": 0.25}),
    ("plain, tensors", {"a": torch.tensor(0.5), "b": torch.tensor([0.1])}, {"a": 0.5, "b": 0.1}),
    (
        "unknown is not zero",
        {"a": 0.0, "b": -1, "c": NAN, "d": None},
        {"a": 0, "b": NAN, "c": NAN, "d": NAN},
    ),
    ("a float32 mean just above 1", {"a": 1.0000001}, {"a": 1.0}),
    (
        "mmdet",
        {"coco/person_precision": 0.379, "coco/cow_precision": NAN, "coco/bbox_mAP": 0.2},
        {"person": 0.379, "cow": NAN},
    ),
    (
        "mmdet, names with slashes",
        {"coco/Brush/Pencil_precision": 0.1, "coco/Cup_precision": 0.2},
        {"Brush/Pencil": 0.1, "Cup": 0.2},
    ),
    (
        "mmdet, a logger's longer prefix",
        {
            "val/lvis/traffic_light_precision": 0.1,
            "val/lvis/cup_precision": 0.2,
            "val/lvis/bbox_AP": 0.3,
        },
        {"traffic_light": 0.1, "cup": 0.2},
    ),
    ("mmdet, one class", {"coco/cat_precision": 0.5}, {"cat": 0.5}),
    ("mmdet, no prefix", {"cat_precision": 0.5, "dog_precision": 0.25}, {"cat": 0.5, "dog": 0.25}),
    (
        # OrderedDict of tasks as detectron2's COCOEvaluator.evaluate() returns it, in percent
        # (detectron2/evaluation/coco_evaluation.py, _derive_coco_results).
        "detectron2",
        {"bbox": {"AP": 40.2, "AP50": 61.0, "APs": 24.2, "AP-person": 54.5, "AP-cow": NAN}},
        {"person": 0.545, "cow": NAN},
    ),
    (
        # The same after flatten_results_dict, as in metrics.json; boxes before masks.
        "detectron2, flat, with masks",
        {"bbox/AP": 40.2, "bbox/AP-person": 54.5, "segm/AP-person": 47.1, "loss_cls": 0.2},
        {"person": 0.545},
    ),
    (
        "detectron2, below one percent",
        {"bbox/AP-a": 0.4, "bbox/AP-b": 0.9},
        {"a": 0.004, "b": 0.009},
    ),
    (
        # metrics.summary() of Ultralytics 8.4; it omits classes without instances.
        "Ultralytics summary",
        [
            {
                "Class": "cat",
                "Images": 1,
                "Instances": 18,
                "Box-P": 0.6,
                "mAP50": 0.59536,
                "mAP50-95": 0.53915,
            },
            {
                "Class": "dog",
                "Images": 1,
                "Instances": 22,
                "Box-P": 0.5,
                "mAP50": 0.34333,
                "mAP50-95": 0.42055,
            },
        ],
        {"cat": 0.53915, "dog": 0.42055},
    ),
    (
        "Ultralytics arrays",
        {"maps": np.array([0.5, 0.25]), "names": {1: "dog", 0: "cat"}},
        {"cat": 0.5, "dog": 0.25},
    ),
]


@pytest.mark.parametrize(
    ("metrics", "expected"), [f[1:] for f in FORMATS], ids=[f[0] for f in FORMATS]
)
def test_formats(metrics: Any, expected: dict[str, float]) -> None:
    scores = read_scores(metrics)
    assert scores.class_names == tuple(expected)
    np.testing.assert_allclose(scores.ap, list(expected.values()), rtol=1e-6)


def test_percent() -> None:
    assert read_scores({"a": 53.2, "b": 0.5}, percent=True).ap.tolist() == [0.532, 0.005]


def test_class_scores_are_returned_unchanged() -> None:
    scores = ClassScores(("a",), np.array([0.5]))
    assert read_scores(scores) is scores


def test_prefix_chooses_a_group() -> None:
    metrics = {"bbox": {"AP-a": 10.0}, "segm": {"AP-a": 20.0}}
    assert read_scores(metrics).ap.tolist() == [0.1]
    assert read_scores(metrics, prefix="segm").ap.tolist() == [0.2]
    two = {"coco/a_precision": 0.1, "coco/b_precision": 0.2, "lvis/a_precision": 0.3}
    assert read_scores(two, prefix="lvis").ap.tolist() == [0.3]


def test_ultralytics_classes_without_instances_are_unknown() -> None:
    # DetMetrics of Ultralytics 8.4 writes the mean into maps for classes without instances.
    box = SimpleNamespace(maps=np.array([0.54, 0.42, 0.48]), ap_class_index=np.array([0, 1]))
    metrics = SimpleNamespace(
        box=box, names={0: "cat", 1: "dog", 2: "cow"}, nt_per_class=np.array([18, 22, 0])
    )
    scores = read_scores(metrics)
    np.testing.assert_array_equal(scores.ap, [0.54, 0.42, NAN])
    assert scores.num_instances is not None
    assert scores.num_instances.tolist() == [18, 22, 0]


BAD: list[tuple[str, Any, dict[str, Any], str]] = [
    ("percent not given", {"a": 53.2}, {}, r"'a' must lie in 0 to 1 .* got 53.2; .* percent=True"),
    ("negative", {"a": -0.5}, {}, "must lie in 0 to 1"),
    ("above 100 percent", {"bbox/AP-a": 101.0}, {}, "must lie in 0 to 100"),
    ("text", {"a": "good"}, {}, "the AP of 'a' must be a number, got 'good'"),
    ("empty", {}, {}, "metrics are empty"),
    ("averages only", {"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.5}, {}, "classwise=True"),
    ("two groups", {"x/AP-a": 1.0, "y/AP-a": 2.0}, {}, "choose one with prefix="),
    ("an unknown group", {"x/AP-a": 1.0}, {"prefix": "bbox"}, "got 'bbox'"),
    ("unknown type", 0.3, {}, "metrics must be a mapping of class to AP.* got float"),
    ("maps of another length", {"maps": [0.1], "names": ["a", "b"]}, {}, r"\(2 names\), got 1"),
    (
        "torchmetrics without class metrics",
        {"map": torch.tensor(0.1), "map_per_class": torch.tensor(-1.0), "classes": torch.tensor(0)},
        {"class_names": ["a"]},
        "class_metrics=True",
    ),
    (
        "torchmetrics without names",
        {"map_per_class": torch.tensor([0.1]), "classes": torch.tensor([0])},
        {},
        "class_names=",
    ),
    (
        "torchmetrics with other labels",
        {"map_per_class": torch.tensor([0.1]), "classes": torch.tensor([90])},
        {"class_names": ["a"]},
        "90, but there are 1 class_names",
    ),
]


@pytest.mark.parametrize(
    ("metrics", "options", "message"), [b[1:] for b in BAD], ids=[b[0] for b in BAD]
)
def test_unreadable_metrics_are_an_error(
    metrics: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        read_scores(metrics, **options)


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


FILES = [
    ("plain.json", '{"cat": 0.5, "dog": NaN, "cow": null}', {"cat": 0.5, "dog": NAN, "cow": NAN}),
    (
        "rows.json",
        '[{"class": "cat", "ap": 0.5}, {"class": "dog", "ap": -1}]',
        {"cat": 0.5, "dog": NAN},
    ),
    # mmengine's vis_data/scalars.json: training lines, then one of validation.
    (
        "scalars.json",
        '{"lr": 0.1, "loss": 2.0, "epoch": 1, "step": 10}\n'
        '{"coco/cat_precision": 0.1, "coco/dog_precision": 0.2, "step": 1}\n'
        '{"lr": 0.1, "loss": 1.0, "epoch": 2, "step": 20}\n'
        '{"coco/cat_precision": 0.3, "coco/dog_precision": NaN, "step": 2}\n'
        '{"lr": 0.01, "loss": 0.9, "epoch": 3, "step": 30}\n',
        {"cat": 0.3, "dog": NAN},
    ),
    # detectron2's metrics.json with an incomplete last line.
    (
        "metrics.json",
        '{"bbox/AP": 20.0, "bbox/AP-cat": 10.0, "iteration": 99}\n{"bbox/AP": 2',
        {"cat": 0.1},
    ),
    (
        "table.csv",
        "class,AP,images\ncat,0.5,10\ndog,,3\ncow,nan,0\n",
        {"cat": 0.5, "dog": NAN, "cow": NAN},
    ),
    ("excel.csv", "\ufeffName,mAP50-95\ncat,0.5\n", {"cat": 0.5}),
    # The table that YOLOv5 prints, and the rows of Roboflow's performance by class.
    ("yolov5.csv", "Class,Images,P,R,mAP@.5,mAP@.5:.95\ncat,10,0.9,0.2,0.7,0.5\n", {"cat": 0.5}),
    (
        "roboflow.json",
        '[{"className": "cat", "map50": 0.7, "map50_95": 0.5, "precision": 0.9, "recall": 0.2}]',
        {"cat": 0.5},
    ),
]


@pytest.mark.parametrize(("name", "text", "expected"), FILES, ids=[f[0] for f in FILES])
def test_files(tmp_path: Path, name: str, text: str, expected: dict[str, float]) -> None:
    scores = read_scores(write(tmp_path, name, text))
    assert scores.class_names == tuple(expected)
    np.testing.assert_array_equal(scores.ap, list(expected.values()))


BAD_FILES = [
    ("a.csv", "x,y\n1,2\n", r"a\.csv: needs a column of classes .* got x, y"),
    (
        "precision.csv",
        "class,precision,recall,mAP50\ncat,0.9,0.2,0.35\n",
        r"one of APs \(ap, .* got class, precision, recall, mAP50",
    ),
    ("b.csv", "class,ap\ncat,0.5\ncat,0.6\n", "class 'cat' appears twice"),
    ("c.csv", "class,ap\n", "expected rows"),
    ("d.json", "3", "expected an object or a list, got int"),
    ("e.json", "{", "line 1 is not JSON"),
    ("f.jsonl", '{"loss": 1}\n{"loss": 2}\n', "none of its 2 lines has per-class values"),
]


@pytest.mark.parametrize(("name", "text", "message"), BAD_FILES, ids=[f[0] for f in BAD_FILES])
def test_errors_name_the_file(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        read_scores(write(tmp_path, name, text))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(InputError, match=r"no metrics file at nowhere\.json"):
        read_scores("nowhere.json")


def test_published_tables_are_in_percent(photos: Path) -> None:
    tables = json.loads((photos / "per_class_ap_tables.json").read_text())
    assert len(tables) == 16
    for table in tables.values():
        with pytest.raises(InputError, match="percent=True"):
            read_scores(table)
        scores = read_scores(table, percent=True)
        assert len(scores) == 80
        assert 0.3 < scores.ap.max() < 1


@pytest.mark.parametrize(
    ("classes", "first_label", "expected"),
    [
        ([0, 1], None, [0.1, 0.2, NAN]),  # 0 is only there where the first class is 0
        ([1, 3], None, [0.1, NAN, 0.2]),  # 3 of three classes: counted from 1
        ([1, 2], 0, [NAN, 0.1, 0.2]),
        ([1, 2], 1, [0.1, 0.2, NAN]),
    ],
)
def test_torchmetrics_labels_count_from_0_or_as_in_torchvision_from_1(
    classes: list[int], first_label: int | None, expected: list[float]
) -> None:
    metrics = {"map_per_class": torch.tensor([0.1, 0.2]), "classes": torch.tensor(classes)}
    scores = read_scores(metrics, ("cat", "dog", "cow"), first_label=first_label)
    np.testing.assert_allclose(scores.ap, expected, rtol=1e-6)


def test_torchmetrics_labels_that_leave_both_open_are_refused() -> None:
    metrics = {"map_per_class": [0.1, 0.2], "classes": [1, 2]}
    with pytest.raises(InputError, match=r"may count from 0 or, as in torchvision, from 1; pass"):
        read_scores(metrics, ("cat", "dog", "cow"))
    with pytest.raises(InputError, match="do not fit 3 class_names counted from 1"):
        read_scores({"map_per_class": [0.1, 0.2], "classes": [0, 2]}, "abc", first_label=1)


def test_torchmetrics_results_with_prefixes() -> None:
    names = ("cat", "dog")
    logged = {"val/map": 0.15, "val/map_per_class": [0.1, 0.2], "val/classes": [0, 1]}
    assert read_scores(logged, names).ap.tolist() == [0.1, 0.2]
    both = {
        "bbox_map_per_class": [0.1, 0.2],
        "segm_map_per_class": [0.3, 0.4],
        "classes": [0, 1],
    }
    assert read_scores(both, names).ap.tolist() == [0.1, 0.2]
    assert read_scores(both, names, prefix="segm").ap.tolist() == [0.3, 0.4]
    with pytest.raises(InputError, match="choose one with prefix="):
        read_scores(both, names, prefix="keypoints")
    with pytest.raises(InputError, match="not 'val/classes', its class numbers"):
        read_scores({"val/map_per_class": [0.1]}, names)


def test_a_torchmetrics_evaluation_of_nothing_knows_no_class() -> None:
    from torchmetrics.detection import MeanAveragePrecision

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = MeanAveragePrecision(class_metrics=True).compute()
    assert np.isnan(read_scores(result, ("cat", "dog")).ap).all()


def test_transformers_and_rf_detr() -> None:
    # The keys of transformers' object-detection example, with its metric_key_prefix.
    example = {
        "eval_loss": 1.2,
        "eval_map": 0.2,
        "eval_map_50": 0.4,
        "eval_map_75": 0.1,
        "eval_map_small": -1.0,
        "eval_map_medium": 0.1,
        "eval_map_large": 0.3,
        "eval_map_traffic light": 0.1,
        "eval_mar_100_traffic light": 0.3,
        "eval_map_cat": -1.0,
        "epoch": 3.0,
    }
    scores = read_scores(example)
    assert scores.class_names == ("traffic light", "cat")
    np.testing.assert_array_equal(scores.ap, [0.1, NAN])
    plain = {key.removeprefix("eval_"): value for key, value in example.items()}
    assert read_scores(plain).class_names == ("traffic light", "cat")
    scores = read_scores({"val/AP/cat": 0.25, "val/AP/traffic/light": 0.5, "val/loss": 3.0})
    assert scores.class_names == ("cat", "traffic/light")
    assert scores.ap.tolist() == [0.25, 0.5]


def test_a_class_may_be_called_like_a_key_of_a_trainer() -> None:
    plain = {"low_precision": 0.25, "car": 0.5}
    for names in (None, ("car", "low_precision")):
        assert read_scores(plain, names).class_names == ("low_precision", "car")
    mmdet = {"coco/low_precision": 0.25, "coco/bbox_mAP": 0.3}
    assert read_scores(mmdet, ("low",)).class_names == ("low",)
    odd = {"AP-x": 0.25, "map": 0.5, "map_of_town": 0.1}
    assert read_scores(odd, tuple(odd)).ap.tolist() == [0.25, 0.5, 0.1]


def test_percent_and_fraction_are_not_mixed_up(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(InputError, match=r"percentages, give percent=True \(in NeedRules\)"):
        read_scores({"a": 0.9, "b": 31.0})
    early = read_scores({"a": 0.9, "b": 2.0}, percent=True)
    assert early.ap.tolist() == pytest.approx([0.009, 0.02])
    assert not caplog.records
    read_scores({"a": 0.9, "b": 0.3}, percent=True)
    assert "if they are fractions, leave out percent=True" in caplog.text

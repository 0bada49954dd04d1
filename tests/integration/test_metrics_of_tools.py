"""Reading the real output of pycocotools, faster-coco-eval, torchmetrics and mmdet."""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hardmine.metrics import read_scores
from hardmine.mining.need import class_need


@pytest.fixture(scope="module")
def results(photos: Path) -> dict[int, list[dict[str, Any]]]:
    """Detections of a YOLOX-nano, by image id."""
    by_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for row in json.loads((photos / "yolox_nano_results.json").read_text()):
        by_image[row["image_id"]].append(row)
    return by_image


@pytest.fixture(scope="module")
def labels(photos: Path) -> dict[str, Any]:
    """COCO annotations of the first 60 photos, class numbers from 0."""
    whole = json.loads((photos / "instances.json").read_text())
    number = {category["id"]: row for row, category in enumerate(whole["categories"])}
    images = whole["images"][:60]
    chosen = {image["id"] for image in images}
    return {
        "images": images,
        "categories": whole["categories"],
        "annotations": [a for a in whole["annotations"] if a["image_id"] in chosen],
        "number": number,
        "names": [category["name"] for category in whole["categories"]],
    }


def coco_eval(labels: dict[str, Any], results: Any, tool: str) -> Any:
    """The evaluator of one of the two packages, accumulated."""
    if tool == "pycocotools":
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    else:
        from faster_coco_eval import COCO
        from faster_coco_eval import COCOeval_faster as COCOeval
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {key: labels[key] for key in ("images", "categories", "annotations")}
        truth.createIndex()
        found = truth.loadRes([r for image in labels["images"] for r in results[image["id"]]])
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


@pytest.mark.parametrize("tool", ["pycocotools", "faster_coco_eval"])
def test_coco_eval(tool: str, labels: dict[str, Any], results: Any) -> None:
    evaluation = coco_eval(labels, results, tool)
    scores = read_scores(evaluation)
    assert list(scores.class_names) == labels["names"]
    # The tool's own summary: mean over classes, then by size.
    assert np.nanmean(scores.ap) == pytest.approx(evaluation.stats[0])
    assert scores.ap_by_size is not None
    np.testing.assert_allclose(np.nanmean(scores.ap_by_size, axis=0), evaluation.stats[3:6])
    shown = np.bincount(
        [labels["number"][a["category_id"]] for a in labels["annotations"]], minlength=80
    )
    np.testing.assert_array_equal(scores.num_instances, shown)
    assert np.isnan(scores.ap[shown == 0]).all()


def test_torchmetrics(labels: dict[str, Any], results: Any) -> None:
    from torchmetrics.detection import MeanAveragePrecision

    metric = MeanAveragePrecision(box_format="xywh", class_metrics=True, backend="faster_coco_eval")
    for image in labels["images"]:
        found, shown = (
            {
                "boxes": torch.tensor([row["bbox"] for row in rows]).reshape(-1, 4),
                "labels": torch.tensor(
                    [labels["number"][row["category_id"]] for row in rows], dtype=torch.int64
                ),
            }
            for rows in (
                results[image["id"]],
                [a for a in labels["annotations"] if a["image_id"] == image["id"]],
            )
        )
        found["scores"] = torch.tensor([row["score"] for row in results[image["id"]]])
        metric.update([found], [shown])
    scores = read_scores(metric.compute(), labels["names"])
    reference = read_scores(coco_eval(labels, results, "pycocotools"))
    np.testing.assert_allclose(scores.ap, reference.ap, atol=0.01)
    np.testing.assert_array_equal(np.isnan(scores.ap), np.isnan(reference.ap))


def test_mmdet(labels: dict[str, Any], results: Any, tmp_path: Path) -> None:
    pytest.importorskip("mmdet", reason="needs the mmdet extra")
    import mmcv_ext_from_torchvision

    mmcv_ext_from_torchvision.install()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mmdet's warnings on import
        from mmdet.evaluation.metrics import CocoMetric

    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({k: labels[k] for k in ("images", "categories", "annotations")}))
    metric = CocoMetric(ann_file=str(truth), metric="bbox", classwise=True)
    metric.dataset_meta = {"classes": tuple(labels["names"])}
    for image in labels["images"]:
        rows = results[image["id"]]
        boxes = np.array([row["bbox"] for row in rows], float).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        found = {
            "img_id": image["id"],
            "bboxes": boxes,
            "scores": np.array([row["score"] for row in rows]),
            "labels": np.array([labels["number"][row["category_id"]] for row in rows], int),
        }
        shown = {"img_id": image["id"], "width": image["width"], "height": image["height"]}
        metric.results.append((shown, found))
    metrics = metric.evaluate(size=len(labels["images"]))
    need = class_need(metrics, [name.replace(" ", "_") for name in labels["names"]])
    reference = read_scores(coco_eval(labels, results, "pycocotools"))
    np.testing.assert_allclose(need.ap, reference.ap, atol=0.0006)  # mmdet rounds to 3 digits
    assert ("traffic_light", "traffic light") in need.names.renamed
    assert not need.names.missing
    assert not need.names.extra

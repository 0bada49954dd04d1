"""AP by class from the metric, or from the predictions if the metric reports none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.registry import DATASETS
from mmdet.structures import DetDataSample
from mmdet_case import CLASSES, coco
from mmengine.evaluator import Evaluator
from mmengine.structures import InstanceData

from hardmine.errors import InputError
from hardmine_mmdet.validation import ValidationReader


def reader(scenes, *metrics, **more):
    dataset = DATASETS.build(coco(scenes[1], train=False))
    dataset.full_init()
    options = {"metric": None, "iou_type": "bbox"} | more
    return ValidationReader(Evaluator(list(metrics)), dataset, **options)


def test_the_metric_is_set_to_classwise(scenes) -> None:
    metric = CocoMetric(ann_file=str(scenes[1] / "labels.json"))
    assert not metric.classwise
    found = reader(scenes, metric)
    assert metric.classwise
    scores = found.read(
        {"coco/bbox_mAP": 0.2, "coco/car_precision": 0.25, "coco/cup_precision": np.nan}
    ).scores
    assert dict(zip(scores.class_names, scores.ap.tolist(), strict=True))["car"] == 0.25
    assert found.read({}).scores is None


def test_a_metric_is_chosen_by_its_prefix(scenes) -> None:
    file = str(scenes[1] / "labels.json")
    first, second = CocoMetric(ann_file=file), CocoMetric(ann_file=file, prefix="night")
    found = reader(scenes, first, second, metric="night")
    assert (first.classwise, second.classwise) == (False, True)
    scores = found.read({"coco/car_precision": 0.9, "night/car_precision": 0.1}).scores
    assert scores.ap[scores.class_names.index("car")] == 0.1
    with pytest.raises(InputError, match="no metric has the prefix 'day'"):
        reader(scenes, first, metric="day")


def predictions(dataset, *, masks):
    """Labelled boxes with noise: some shifted, missing or of another class, some false."""
    rng = np.random.default_rng(0)
    samples = []
    for position in range(len(dataset)):
        info = dataset.get_data_info(position)
        truth = [each for each in info["instances"] if rng.random() < 0.8]
        boxes = [np.array(each["bbox"]) + rng.normal(0, 0.7, 4) for each in truth]
        labels = [each["bbox_label"] for each in truth]
        labels = [label if rng.random() < 0.8 else int(rng.integers(8)) for label in labels]
        for _ in range(4):
            corner = rng.uniform(0, 40, 2)
            boxes.append(np.concatenate([corner, corner + rng.uniform(4, 24, 2)]))
            labels.append(int(rng.integers(8)))
        found = InstanceData(
            bboxes=torch.tensor(np.array(boxes), dtype=torch.float32),
            labels=torch.tensor(labels),
            scores=torch.tensor(rng.random(len(labels)), dtype=torch.float32),
        )
        if masks:
            found.masks = torch.zeros((len(labels), info["height"], info["width"]), dtype=bool)
        shape = (info["height"], info["width"])
        sample = DetDataSample(metainfo={"img_id": info["img_id"], "ori_shape": shape})
        sample.pred_instances = found
        samples.append(sample)
    return samples


def test_predictions_give_the_coco_metrics_values(scenes) -> None:
    """Evaluated here where masks overwrite the boxes' values, or a metric reports no class."""
    file = str(scenes[1] / "labels.json")
    dataset = DATASETS.build(coco(scenes[1], train=False))
    dataset.full_init()
    boxes = CocoMetric(ann_file=file, classwise=True)
    both = CocoMetric(ann_file=file, metric=["bbox", "segm"])
    readers = [reader(scenes, both), reader(scenes, VOCMetric(metric="mAP"))]
    reported = []
    for metric in (boxes, both):
        metric.dataset_meta = dataset.metainfo
        samples = predictions(dataset, masks=metric is both)
        metric.process({}, [sample.to_dict() for sample in samples])
        reported.append(metric.evaluate(len(dataset)))
    expected = np.array([reported[0][f"coco/{name}_precision"] for name in CLASSES])
    assert np.nanmax(expected) > 0.1
    # The AP of the empty masks is 0 and overwrites that of the boxes.
    assert np.nanmax([reported[1][f"coco/{name}_precision"] for name in CLASSES]) == 0
    for each in readers:
        each.begin()
        each.collect(predictions(dataset, masks=False))
        # The metric rounds to three digits.
        np.testing.assert_allclose(each.read(reported[1]).scores.ap, expected, atol=5.1e-4)


def test_masks_are_read_from_a_metric_that_writes_them_last(scenes) -> None:
    file = str(scenes[1] / "labels.json")
    found = reader(scenes, CocoMetric(ann_file=file, metric=["bbox", "segm"]), iou_type="segm")
    scores = found.read({"coco/car_precision": 0.5}).scores
    assert np.nanmax(scores.ap) == 0.5

"""Class values from the metric, or from the predictions where the metric gives none."""

from __future__ import annotations

import numpy as np
import pytest
from mmdet.evaluation import CocoMetric, VOCMetric
from mmdet.registry import DATASETS
from mmdet_case import CLASSES, coco, config, make_runner
from mmengine.evaluator import Evaluator
from mmengine.hooks import Hook

from hardmine.errors import InputError
from hardmine_mmdet.validation import ValidationReader


def reader(scenes, *metrics, **more):
    dataset = DATASETS.build(coco(scenes[1], train=False))
    dataset.full_init()
    options = {"metric": None, "iou_type": "bbox"} | more
    return ValidationReader(Evaluator(list(metrics)), dataset, **options)


def test_the_metric_is_asked_for_class_values(scenes) -> None:
    metric = CocoMetric(ann_file=str(scenes[1] / "labels.json"))
    assert not metric.classwise
    found = reader(scenes, metric)
    assert metric.classwise
    scores = found.read(
        {"coco/bbox_mAP": 0.2, "coco/car_precision": 0.25, "coco/cup_precision": np.nan}
    )
    assert dict(zip(scores.class_names, scores.ap.tolist(), strict=True))["car"] == 0.25
    assert found.read({}) is None


def test_a_metric_is_chosen_by_its_prefix(scenes) -> None:
    file = str(scenes[1] / "labels.json")
    first, second = CocoMetric(ann_file=file), CocoMetric(ann_file=file, prefix="night")
    found = reader(scenes, first, second, metric="night")
    assert (first.classwise, second.classwise) == (False, True)
    scores = found.read({"coco/car_precision": 0.9, "night/car_precision": 0.1})
    assert scores.ap[scores.class_names.index("car")] == 0.1
    with pytest.raises(InputError, match="no metric has the prefix 'day'"):
        reader(scenes, first, metric="day")


class Watch(Hook):
    """Feeds readers with the predictions of a validation, as the mining hook does."""

    def __init__(self, readers) -> None:
        self.readers, self.scores, self.metrics = readers, [], {}

    def before_val_epoch(self, runner) -> None:
        for each in self.readers:
            each.begin()

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        for each in self.readers:
            each.collect(outputs)

    def after_val_epoch(self, runner, metrics=None) -> None:
        self.metrics = metrics
        self.scores = [each.read(metrics) for each in self.readers]


def test_predictions_give_the_coco_metrics_values(scenes, tmp_path) -> None:
    """Where masks overwrite the boxes' values, or a metric has none: judged here."""
    file = str(scenes[1] / "labels.json")
    masks = CocoMetric(ann_file=file, metric=["bbox", "segm"])
    settings = config(*scenes, tmp_path, custom_hooks=[], epochs=6)
    settings.val_evaluator.classwise = True
    settings.optim_wrapper.optimizer.lr = 0.02
    settings.train_cfg.val_interval = 6
    runner = make_runner(settings)
    watch = Watch([reader(scenes, masks), reader(scenes, VOCMetric(metric="mAP"))])
    runner.register_hook(watch)
    runner.train()
    expected = [watch.metrics[f"coco/{name}_precision"] for name in CLASSES]
    assert np.nanmax(expected) > 0
    for scores in watch.scores:
        # The metric rounds to three digits.
        np.testing.assert_allclose(scores.ap, expected, atol=5.1e-4)


def test_masks_are_read_from_a_metric_that_writes_them_last(scenes) -> None:
    file = str(scenes[1] / "labels.json")
    found = reader(scenes, CocoMetric(ann_file=file, metric=["bbox", "segm"]), iou_type="segm")
    scores = found.read({"coco/car_precision": 0.5})
    assert np.nanmax(scores.ap) == 0.5
    with pytest.raises(InputError, match="evaluates 'segm' last"):
        reader(scenes, CocoMetric(ann_file=file), iou_type="segm")


def test_instances_are_counted_by_name(scenes) -> None:
    import json

    labels = json.loads((scenes[1] / "labels.json").read_text())
    counts = [0] * len(CLASSES)
    for annotation in labels["annotations"]:
        counts[annotation["category_id"] - 10] += 1
    metric = CocoMetric(ann_file=str(scenes[1] / "labels.json"))
    got = reader(scenes, metric).num_instances(("unicorn", *CLASSES))
    assert got.tolist() == [0, *counts]

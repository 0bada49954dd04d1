"""Predicted boxes reach their images: AP computed from them is the AP that the trainer computed."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from host_scenes import load_scenes
from torch.utils.data import DataLoader, DistributedSampler
from torchmetrics.detection import MeanAveragePrecision
from torchvision.ops import box_convert
from transformers import EvalPrediction, RTDetrImageProcessor

from hardmine.detections import average_precision_from_matches, match_detections
from hardmine.errors import InputError
from hardmine.hosts import predicted_boxes
from hardmine.records import ImageSet
from hardmine_lightning.predictions import ids_in_order, kept_predictions
from hardmine_transformers.predictions import boxes_of_evaluation


@pytest.fixture(scope="module")
def images(scenes) -> ImageSet:
    """The validation images."""
    return load_scenes(scenes)[1]


def found_and_true(images: ImageSet) -> Iterator[tuple[Any, Any, Any, Any]]:
    """For each image: boxes found near the labels, some with another class; boxes and classes."""
    rng = np.random.default_rng(0)
    instances = images.instances
    assert instances is not None
    for row in range(len(images)):
        own = instances.image_rows == row
        boxes, classes = instances.boxes[own].astype(np.float64), instances.class_rows[own]
        moved = boxes + rng.normal(0, 1.5, boxes.shape)
        found = np.where(rng.random(len(classes)) < 0.2, (classes + 1) % 3, classes)
        yield moved, found, boxes, classes


def updated(images: ImageSet, order: list[int], *, first: int, resize: Any) -> Any:
    """A metric after a validation in some order, with boxes of resized images."""
    metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    rng = np.random.default_rng(1)
    everything = list(found_and_true(images))
    for row in order:
        moved, found, boxes, classes = everything[row]
        metric.update(
            [
                {
                    "boxes": torch.tensor(resize(moved)),
                    "scores": torch.tensor(rng.random(len(found))),
                    "labels": torch.tensor(found + first),
                }
            ],
            [{"boxes": torch.tensor(resize(boxes)), "labels": torch.tensor(classes + first)}],
        )
    return metric


def ap_of(images: ImageSet, detections: Any) -> Any:
    return average_precision_from_matches(match_detections(images, detections))


@pytest.mark.parametrize("first", [0, 1])
def test_boxes_that_torchmetrics_keeps_have_the_metrics_ap(images, first) -> None:
    """In any order, in resized and padded images, with labels from 0 or from 1."""
    order = [3, 0, 5, 1, 4, 2]

    def resize(boxes: Any) -> Any:
        return boxes * [4.0, 2.5, 4.0, 2.5] + [0, 40, 0, 40]

    metric = updated(images, order, first=first, resize=resize)
    computed = metric.compute()
    kept = kept_predictions(metric, images.ids[order].tolist(), images)
    ap = ap_of(images, predicted_boxes(kept, images))
    classes = computed["classes"].numpy() - first
    expected = computed["map_per_class"].numpy()
    labelled = expected >= 0
    assert 0.2 < expected[labelled].mean() < 0.9
    assert ap[classes[labelled]] == pytest.approx(expected[labelled], abs=1e-5)


def test_boxes_of_other_images_are_refused(images) -> None:
    metric = updated(images, [0, 1, 2, 3, 4, 5], first=0, resize=lambda boxes: boxes)
    assert len(kept_predictions(metric, images.ids.tolist(), images)) == 6
    with pytest.raises(InputError, match="are not its labels in val_images"):
        kept_predictions(metric, images.ids[::-1].tolist(), images)
    with pytest.raises(InputError, match="updated with 6 images, and the validation has 5"):
        kept_predictions(metric, images.ids[:5].tolist(), images)


def test_the_order_of_a_loader_is_that_of_its_sampler(images) -> None:
    rows = range(len(images))
    assert ids_in_order([DataLoader(rows)], images) == images.ids.tolist()
    share = DistributedSampler(rows, num_replicas=2, rank=1, shuffle=False)
    assert ids_in_order(DataLoader(rows, sampler=share), images) == images.ids[1::2].tolist()
    with pytest.raises(InputError, match="validation draws with RandomSampler; give val_images in"):
        ids_in_order(DataLoader(rows, shuffle=True), images)
    with pytest.raises(InputError, match="data set has 3 images and val_images has 6"):
        ids_in_order(DataLoader(range(3)), images)


def evaluation(images: ImageSet, *, ids: bool) -> tuple[Any, list[int]]:
    """An evaluation by DETR's outputs, in batches of two; and the order of its images."""
    order = [3, 0, 5, 1, 4, 2] if ids else list(range(6))
    everything = list(found_and_true(images))
    names = len(images.class_names)
    logits = torch.full((6, 20, names), -9.0)
    boxes = torch.full((6, 20, 4), 0.01)
    generator = torch.Generator().manual_seed(2)
    labels: list[Any] = []
    for position, row in enumerate(order):
        moved, found, _, classes = everything[row]
        height, width = images.sizes[row]
        relative = torch.tensor(moved / [width, height, width, height]).float()
        count = len(found)
        logits[position, range(count), found] = torch.rand(count, generator=generator) * 4
        boxes[position, :count] = box_convert(relative, "xyxy", "cxcywh")
        label = {"class_labels": classes.astype(np.int64)}
        labels.append(label | ({"image_id": np.array([images.ids[row]])} if ids else {}))
    hidden = np.zeros((2, 20, 8), np.float32)
    batches = [slice(start, start + 2) for start in (0, 2, 4)]
    predictions = [({}, logits[own].numpy(), boxes[own].numpy(), hidden) for own in batches]
    return EvalPrediction(predictions, [labels[own] for own in batches]), order


def trainer_for(images: ImageSet, **more: Any) -> Any:
    """The part of a Trainer that the reader looks at."""
    names = dict(enumerate(images.class_names))
    return SimpleNamespace(
        compute_metrics=lambda evaluated: {"map": 0.5},
        processing_class=RTDetrImageProcessor(),
        model=SimpleNamespace(config=SimpleNamespace(id2label=names)),
        eval_dataset=range(6),
        _get_eval_sampler=torch.utils.data.SequentialSampler,
        **more,
    )


@pytest.mark.parametrize("ids", [True, False])
def test_boxes_of_an_evaluation_have_the_ap_of_the_same_boxes_in_torchmetrics(images, ids) -> None:
    evaluated, order = evaluation(images, ids=ids)
    trainer = trainer_for(images)
    boxes = boxes_of_evaluation(trainer, images, None)
    assert boxes is not None
    assert trainer.compute_metrics(evaluated) == {"map": 0.5}
    ap = ap_of(images, boxes.take())
    metric = MeanAveragePrecision(backend="faster_coco_eval", class_metrics=True)
    everything = list(found_and_true(images))
    logits = np.concatenate([batch[1] for batch in evaluated.predictions])
    for position, row in enumerate(order):
        moved, found, true, classes = everything[row]
        scores = torch.tensor(logits[position, range(len(found)), found]).sigmoid()
        predicted = {"boxes": torch.tensor(moved), "labels": torch.tensor(found), "scores": scores}
        metric.update([predicted], [{"boxes": torch.tensor(true), "labels": torch.tensor(classes)}])
    computed = metric.compute()
    labelled = computed["map_per_class"].numpy() >= 0
    expected = computed["map_per_class"].numpy()[labelled]
    assert 0.1 < expected.mean() < 0.9
    # The other queries have a score of sigmoid(-9): they come last and change AP by little.
    assert ap[computed["classes"].numpy()[labelled]] == pytest.approx(expected, abs=1e-3)


def test_an_evaluation_that_cannot_be_told_apart_is_refused(images) -> None:
    evaluated, _ = evaluation(images, ids=False)
    shuffled = trainer_for(images)
    shuffled._get_eval_sampler = torch.utils.data.RandomSampler
    reversed_images = images.subset(range(5, -1, -1))
    for trainer, others, message in (
        (shuffled, images, "evaluation draws with RandomSampler"),
        (trainer_for(images), reversed_images, "are not those in val_images"),
        (trainer_for(images), images.subset(range(5)), "predicted 6 images"),
    ):
        boxes = boxes_of_evaluation(trainer, others, None)
        assert boxes is not None
        trainer.compute_metrics(evaluated)
        with pytest.raises(InputError, match=message):
            boxes.take()
    without = trainer_for(images)
    without.processing_class = None
    assert boxes_of_evaluation(without, images, None) is None

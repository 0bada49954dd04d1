"""COCO's average precision of masks by class, where no metric reports it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from faster_coco_eval import COCO, COCOeval_faster

from hardmine.errors import InputError
from hardmine.metrics import read_scores
from hardmine.records import ClassScores, ImageSet
from hardmine_mmdet.labels import wrappers


def check_masks(dataset: Any, images: ImageSet) -> None:
    """Check that the masks of a validation set can be evaluated.

    Raises:
        InputError: If its labels have no masks, or do not cover all classes (LVIS).
    """
    if images.federated:
        raise InputError(
            "masks of LVIS need LVISMetric, with 'segm' as the last of its metrics: each image "
            "has labels of some classes only, which COCO's evaluation cannot handle"
        )
    first = next((each for _, each in _instances(dataset)), {})
    if "mask" not in first:
        raise InputError(
            "iou_type='segm' needs masks in the validation set, and its labels have none; set "
            "iou_type='bbox', or validate on labels with segmentations"
        )


def evaluate_masks(
    dataset: Any, images: ImageSet, predictions: Sequence[Mapping[str, Any]]
) -> ClassScores:
    """Compute COCO's average precision of masks by class.

    Args:
        dataset: The built validation data set.
        images: The same data set as an image set.
        predictions: For each image ``img_id``, ``labels``, ``mask_scores`` and ``masks``,
            run-length encoded; ``masks`` is None if the detector predicts none.

    Raises:
        InputError: If a prediction has no masks.
    """
    if any(each["masks"] is None for each in predictions):
        raise InputError(
            "iou_type='segm' needs a detector that predicts masks, and this one predicts none; set "
            "iou_type='bbox'"
        )
    truth = COCO(_annotations(dataset, images))
    results = [
        {
            "image_id": int(row),
            "category_id": int(label),
            "score": float(score),
            "segmentation": mask,
        }
        for each, row in zip(
            predictions, images.rows_of([each["img_id"] for each in predictions]), strict=True
        )
        for label, score, mask in zip(
            each["labels"], each["mask_scores"], each["masks"], strict=True
        )
    ]
    evaluation = COCOeval_faster(truth, truth.loadRes(results), iouType="segm")
    evaluation.evaluate()
    evaluation.accumulate()
    return read_scores(evaluation)


def _annotations(dataset: Any, images: ImageSet) -> dict[str, Any]:
    """The labels in COCO's format, with row numbers as ids of images and classes."""
    annotations: list[dict[str, Any]] = []
    for image_id, instance in _instances(dataset):
        [row] = images.rows_of([image_id])
        x1, y1, x2, y2 = instance["bbox"]
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": int(row),
                "category_id": int(instance["bbox_label"]),
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                # AP by size is not used, so the area of the box will do.
                "area": (x2 - x1) * (y2 - y1),
                "segmentation": instance["mask"],
                "iscrowd": int(instance.get("ignore_flag", 0)),
            }
        )
    return {
        "images": [
            {"id": row, "height": int(height), "width": int(width)}
            for row, (height, width) in enumerate(images.sizes)
        ],
        "categories": [{"id": row, "name": name} for row, name in enumerate(images.class_names)],
        "annotations": annotations,
    }


def _instances(dataset: Any) -> Iterator[tuple[Any, dict[str, Any]]]:
    """Each labelled object, preceded by the id of its image."""
    for leaf in wrappers(dataset):
        if hasattr(leaf, "dataset") or hasattr(leaf, "datasets"):
            continue
        for position in range(len(leaf)):
            info = leaf.get_data_info(position)
            for instance in info.get("instances", ()):
                yield info["img_id"], instance

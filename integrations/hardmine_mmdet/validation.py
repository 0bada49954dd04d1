"""Per-class AP of a validation: from a metric that reports it, else from the predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.evaluator import Evaluator

from hardmine.detections import average_precision_from_matches, match_detections
from hardmine.errors import InputError
from hardmine.hosts import ValidationResult, predicted_boxes
from hardmine.metrics import read_scores
from hardmine.records import ClassScores
from hardmine_mmdet.labels import read_dataset
from hardmine_mmdet.masks import check_masks, evaluate_masks
from hardmine_mmdet.predictions import Predictions


class ValidationReader:
    """Reads the AP of each class from every validation.

    Sets ``classwise=True`` on the metric to read, so that it reports AP by class. If no metric
    can, or if its values for boxes and masks overwrite each other, the predictions are collected
    and evaluated by COCO's rules.

    Args:
        evaluator: Of the validation loop.
        dataset: The built validation data set.
        metric: Prefix of the metric to read; the first that reports AP by class if None.
        iou_type: ``"bbox"`` or ``"segm"``.
        measure: Whether to keep the predicted boxes for mining.

    Attributes:
        images: The validation images with their labels.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        dataset: Any,
        *,
        metric: str | None,
        iou_type: str,
        measure: bool = False,
    ) -> None:
        chosen = _classwise_metric(evaluator.metrics, metric)
        self._prefix = metric or (chosen.prefix if chosen is not None else None)
        self.images = read_dataset(dataset).images
        self._dataset = dataset
        self._masks = iou_type == "segm"
        self._measure = measure
        if chosen is not None:
            chosen.classwise = True
            # Boxes and masks are reported under the same names, so the last one stays.
            reported = (getattr(chosen, "metrics", None) or ["bbox"])[-1]
            self._from_metric = reported == iou_type
        else:
            self._from_metric = False
        evaluate_by_masks = self._masks and not self._from_metric
        if evaluate_by_masks:
            check_masks(dataset, self.images)
        self._predictions = Predictions(masks=evaluate_by_masks)

    def begin(self) -> None:
        """Start a validation: forget the predictions of the last one."""
        self._predictions.clear()

    def collect(self, outputs: Sequence[Any]) -> None:
        """Keep the predictions of a batch, if they are needed."""
        if self._measure or not self._from_metric:
            self._predictions.collect(outputs)

    def read(self, metrics: Mapping[str, Any]) -> ValidationResult:
        """AP of each class and, if they are kept, the predicted boxes. All ranks must call this.

        Raises:
            InputError: If the metrics, or the predictions used in their place, cannot be read.
        """
        if not self._from_metric:
            return self._evaluate_predictions()
        scores = None
        if metrics:
            scores = read_scores(metrics, self.images.class_names, prefix=self._prefix)
        if not self._measure:
            return ValidationResult(scores)
        return ValidationResult.measured(
            scores, lambda: predicted_boxes(self._predictions.gather(), self.images)
        )

    def _evaluate_predictions(self) -> ValidationResult:
        try:
            predictions = self._predictions.gather()
        except InputError as error:
            raise InputError(
                f"no metric reports AP by class, and the predictions cannot be evaluated: {error}"
            ) from error
        boxes = predicted_boxes(predictions, self.images)
        if len(boxes) == 0:
            return ValidationResult(None)
        if self._masks:
            scores = evaluate_masks(self._dataset, self.images, predictions)
        else:
            scores = ClassScores(
                class_names=self.images.class_names,
                ap=average_precision_from_matches(match_detections(self.images, boxes)),
                source="predictions of the validation",
            )
        return ValidationResult(scores, boxes if self._measure else None)


def _classwise_metric(metrics: Sequence[Any], prefix: str | None) -> Any:
    """The metric to read AP by class from; None if no metric can report it."""
    classwise = [metric for metric in metrics if hasattr(metric, "classwise")]
    if prefix is not None:
        named = [metric for metric in classwise if metric.prefix == prefix]
        if classwise and not named:
            raise InputError(
                f"no metric has the prefix {prefix!r}; those that report AP by class have "
                f"{[metric.prefix for metric in classwise]}"
            )
        classwise = named
    return classwise[0] if classwise else None

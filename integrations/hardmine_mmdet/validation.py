"""Per-class scores of a validation: from the metric where it gives them, else from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from mmengine.evaluator import Evaluator

from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.errors import InputError
from hardmine.metrics import read_scores
from hardmine.records import ClassScores, names_to_rows
from hardmine_mmdet.labels import read_dataset
from hardmine_mmdet.masks import check_masks, judge_masks
from hardmine_mmdet.predictions import Predictions, boxes_of


class ValidationReader:
    """Reads what each validation says of each class.

    Sets ``classwise`` on the metrics that can tell class values. Where none can, or where those of
    boxes and masks overwrite one another, predictions are collected and judged by COCO's rules.

    Args:
        evaluator: Of the validation loop.
        dataset: The validation data set, built.
        metric: Prefix of the metric to read; the first that gives class values if None.
        iou_type: ``"bbox"`` or ``"segm"``.
        measure: Whether to keep the predicted boxes for mining.

    Attributes:
        images: Those validated, with their labels.
        detections: The boxes predicted in the validation that was read last; None where they are
            not kept or cannot be read.
        note: Why they cannot be read; empty if they can.
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
        chosen = _choose(evaluator.metrics, metric)
        self._prefix = metric or (chosen.prefix if chosen is not None else None)
        self.images = read_dataset(dataset).images
        self.detections: Detections | None = None
        self.note = ""
        self._dataset = dataset
        self._masks = iou_type == "segm"
        self._measure = measure
        if chosen is not None:
            chosen.classwise = True
            # The last of its metrics writes the class values: all have one name.
            written = (getattr(chosen, "metrics", None) or ["bbox"])[-1]
            self._from_metric = written == iou_type
        else:
            self._from_metric = False
        judge_by_masks = self._masks and not self._from_metric
        if judge_by_masks:
            check_masks(dataset, self.images)
        self._predictions = Predictions(masks=judge_by_masks)

    def num_instances(self, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
        """(C,) validation instances of some classes; 0 for one that validation does not know."""
        counts = np.asarray(self.images.class_counts.sum(axis=0)).ravel()
        rows = names_to_rows(class_names, self.images.class_names)
        return np.where(rows >= 0, counts[rows], 0).astype(np.int64)

    def begin(self) -> None:
        """Forget the predictions of the last validation."""
        self._predictions.begin()

    def collect(self, outputs: Sequence[Any]) -> None:
        """Keep the predictions of a batch, where they are needed."""
        if self._measure or not self._from_metric:
            self._predictions.collect(outputs)

    def read(self, metrics: Mapping[str, Any]) -> ClassScores | None:
        """Scores of each class; None if nothing was detected, so that nothing is known.

        All ranks must call this.

        Raises:
            InputError: If the metrics cannot be read, or predictions that stand in for them.
        """
        self.detections, self.note = None, ""
        if not self._from_metric:
            return self._judge()
        if self._measure:
            try:
                self.detections = boxes_of(self._predictions.gather(), self.images)
            except InputError as error:  # the class values do without
                self.note = str(error)
        if not metrics:
            return None
        return read_scores(metrics, self.images.class_names, prefix=self._prefix)

    def _judge(self) -> ClassScores | None:
        try:
            found = self._predictions.gather()
        except InputError as error:
            raise InputError(
                f"no metric tells class values, and the predictions cannot be judged: {error}"
            ) from error
        boxes = boxes_of(found, self.images)
        if len(boxes) == 0:
            return None
        self.detections = boxes if self._measure else None
        if self._masks:
            return judge_masks(self._dataset, self.images, found)
        return ClassScores(
            class_names=self.images.class_names,
            ap=average_precision_from_matches(match_detections(self.images, boxes)),
            source="predictions of the validation",
        )


def _choose(metrics: Sequence[Any], prefix: str | None) -> Any:
    """The metric to read class values from; None if none can tell them."""
    able = [metric for metric in metrics if hasattr(metric, "classwise")]
    if prefix is not None:
        named = [metric for metric in able if metric.prefix == prefix]
        if able and not named:
            raise InputError(
                f"no metric has the prefix {prefix!r}; those that tell class values have "
                f"{[metric.prefix for metric in able]}"
            )
        able = named
    return able[0] if able else None

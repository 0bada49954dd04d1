"""Per-class scores of a validation: from the metric where it gives them, else from predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.dist import all_gather_object
from mmengine.evaluator import Evaluator

from hardmine.errors import InputError
from hardmine.evaluation.detection_ap import average_precision_from_matches
from hardmine.evaluation.detections import Detections, match_detections
from hardmine.metrics import read_scores
from hardmine.records import ClassScores, names_to_rows
from hardmine_mmdet.labels import read_dataset
from hardmine_mmdet.masks import check_masks, judge_masks


class ValidationReader:
    """Reads what each validation says of each class.

    Sets ``classwise`` on the metrics that can tell class values. Where none can, or where those of
    boxes and masks overwrite one another, predictions are collected and judged by COCO's rules.

    Args:
        evaluator: Of the validation loop.
        dataset: The validation data set, built.
        metric: Prefix of the metric to read; the first that gives class values if None.
        iou_type: ``"bbox"`` or ``"segm"``.
    """

    def __init__(
        self, evaluator: Evaluator, dataset: Any, *, metric: str | None, iou_type: str
    ) -> None:
        chosen = _choose(evaluator.metrics, metric)
        self._prefix = metric or (chosen.prefix if chosen is not None else None)
        self._predictions: list[dict[str, Any]] | None = None
        self._failure = ""  # of reading the predictions
        self._dataset = dataset
        self._images = read_dataset(dataset).images
        self._masks = iou_type == "segm"
        if chosen is not None:
            chosen.classwise = True
            # The last of its metrics writes the class values: all have one name.
            written = (getattr(chosen, "metrics", None) or ["bbox"])[-1]
            self._from_metric = written == iou_type
        else:
            self._from_metric = False
        if self._masks and not self._from_metric:
            check_masks(dataset, self._images)

    def num_instances(self, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
        """(C,) validation instances of some classes; 0 for one that validation does not know."""
        counts = np.asarray(self._images.class_counts.sum(axis=0)).ravel()
        rows = names_to_rows(class_names, self._images.class_names)
        return np.where(rows >= 0, counts[rows], 0).astype(np.int64)

    def begin(self) -> None:
        """Forget the predictions of the last validation."""
        self._predictions = None if self._from_metric else []
        self._failure = ""

    def collect(self, outputs: Sequence[Any]) -> None:
        """Keep the predicted boxes or masks of a batch, where they are needed."""
        if self._predictions is None or self._failure:
            return
        try:
            self._predictions.extend(_kept(sample, masks=self._masks) for sample in outputs)
        except Exception as error:  # a validation goes on; ``read`` tells it, on all ranks alike
            self._failure = f"{type(error).__name__}: {error}"

    def read(self, metrics: Mapping[str, Any]) -> ClassScores | None:
        """Scores of each class; None if nothing was detected, so that nothing is known.

        All ranks must call this.

        Raises:
            InputError: If the metrics or the predictions cannot be read.
        """
        if self._predictions is not None:
            return self._judge()
        if not metrics:
            return None
        return read_scores(metrics, self._images.class_names, prefix=self._prefix)

    def _judge(self) -> ClassScores | None:
        parts, failures = zip(*all_gather_object((self._predictions, self._failure)), strict=True)
        if any(failures):
            raise InputError(
                "no metric tells class values, and the predictions cannot be judged either, for "
                "they are not of pred_instances with bboxes, labels and scores: "
                f"{next(filter(None, failures))}"
            )
        # The last images of the ranks may be padding: one prediction an image.
        by_image = {each["img_id"]: each for part in parts for each in part}
        if not any(len(each["scores"]) for each in by_image.values()):
            return None
        rows = self._images.rows_of(np.array(list(by_image)))
        if (rows < 0).any():
            raise InputError(
                f"{int((rows < 0).sum())} validated images are not in the validation data set, "
                f"such as {list(by_image)[int(np.argmax(rows < 0))]!r}"
            )
        found = list(by_image.values())
        if self._masks:
            return judge_masks(self._dataset, self._images, found)
        detections = Detections(
            image_rows=np.repeat(rows, [len(each["scores"]) for each in found]),
            class_rows=np.concatenate([each["labels"] for each in found]).astype(np.int64),
            boxes=np.concatenate([each["boxes"] for each in found]).astype(np.float64),
            scores=np.concatenate([each["scores"] for each in found]).astype(np.float64),
        )
        return ClassScores(
            class_names=self._images.class_names,
            ap=average_precision_from_matches(match_detections(self._images, detections)),
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


def _kept(sample: Any, *, masks: bool) -> dict[str, Any]:
    """What judging one image needs, off the device."""
    found = sample.pred_instances
    kept = {
        "img_id": sample.img_id,
        "labels": _numpy(found.labels),
        "scores": _numpy(found.scores),
    }
    if masks:
        # Some detectors are less sure of a mask than of its box.
        kept["scores"] = _numpy(found.get("mask_scores", found.scores))
        kept["masks"] = _encoded(found.get("masks"))
    else:
        kept["boxes"] = _numpy(found.bboxes)
    return kept


def _encoded(masks: Any) -> Any:
    """Masks of one image, (n, H, W) or encoded already, as run lengths."""
    return encode_mask_results(_numpy(masks)) if isinstance(masks, torch.Tensor) else masks


def _numpy(values: Any) -> npt.NDArray[Any]:
    tensor = getattr(values, "tensor", values)
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array

"""Predictions of a validation, gathered from all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy.typing as npt
import torch
from mmdet.structures.mask import encode_mask_results

from hardmine.hosts import gather_predictions

Prediction = Mapping[str, Any]


class Predictions:
    """Collects predicted boxes, labels and scores on the CPU, and masks if asked to.

    Args:
        masks: Whether to keep masks and their scores.
    """

    def __init__(self, *, masks: bool) -> None:
        self._masks = masks
        self.clear()

    def clear(self) -> None:
        """Forget the predictions of the last validation."""
        self._collected: list[Prediction] = []
        self._failure = ""

    def collect(self, outputs: Sequence[Any]) -> None:
        """Keep the predictions of a batch."""
        if self._failure:
            return
        try:
            self._collected.extend(_to_numpy(sample, masks=self._masks) for sample in outputs)
        except Exception as error:  # validation must go on; ``gather`` raises it on all ranks
            self._failure = (
                "predictions must have pred_instances with bboxes, labels and scores; reading "
                f"them failed with {type(error).__name__}: {error}"
            )

    def gather(self) -> list[Prediction]:
        """One prediction an image, from all ranks. All ranks must call this.

        Raises:
            InputError: If a prediction of any rank could not be read.
        """
        collected, failure = self._collected, self._failure
        self.clear()
        return gather_predictions(collected, failure)


def _to_numpy(sample: Any, *, masks: bool) -> Prediction:
    predicted = sample.pred_instances
    prediction = {
        "img_id": sample.img_id,
        "labels": _array(predicted.labels),
        "scores": _array(predicted.scores),
        "boxes": _array(predicted.bboxes),
    }
    if masks:
        # Some detectors score a mask apart from its box.
        prediction["mask_scores"] = _array(predicted.get("mask_scores", predicted.scores))
        prediction["masks"] = _run_lengths(predicted.get("masks"))
    return prediction


def _run_lengths(masks: Any) -> Any:
    """Masks of one image, (n, H, W) or run-length encoded already, as run lengths."""
    return encode_mask_results(_array(masks)) if isinstance(masks, torch.Tensor) else masks


def _array(values: Any) -> npt.NDArray[Any]:
    tensor = getattr(values, "tensor", values)
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array

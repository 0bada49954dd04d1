"""The boxes that an Ultralytics validator predicts, in pixels of the image files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from ultralytics.utils import ops

from hardmine.detections import Detections
from hardmine.hosts import gather_predictions, predicted_boxes
from hardmine.records import ImageSet


class ValidatedBoxes:
    """Keeps the predicted boxes of a validation until they are gathered.

    Args:
        validator: Of the trainer. Its ``update_metrics``, which gets the predictions of each batch,
            hands them on.
        images: The validation images.
        id_of_file: Image id of each ``im_file``.
    """

    def __init__(self, validator: Any, images: ImageSet, id_of_file: Mapping[str, Any]) -> None:
        self._validator = validator
        self._images = images
        self._id_of_file = id_of_file
        self._predictions: dict[Any, dict[str, Any]] = {}
        self._failure = ""
        update_metrics = validator.update_metrics

        def update(predictions: Any, batch: Any) -> None:
            try:
                self._collect(predictions, batch)
            except Exception as error:  # validation must go on; ``gather`` raises it
                self._failure = (
                    "the validator's predictions have another form: "
                    f"{type(error).__name__}: {error}"
                )
            update_metrics(predictions, batch)

        validator.update_metrics = update

    def gather(self) -> Detections:
        """The boxes of the last validation, once, of all ranks. All ranks must call this."""
        predictions, self._predictions = self._predictions, {}
        failure, self._failure = self._failure, ""
        found = gather_predictions(list(predictions.values()), failure)
        return predicted_boxes(found, self._images)

    def _collect(self, predictions: Sequence[Mapping[str, Any]], batch: Mapping[str, Any]) -> None:
        shape, args = batch["img"].shape[2:], self._validator.args
        for position, found in enumerate(predictions):
            boxes = found["bboxes"]
            if args.task == "obb":
                # The upright box around a turned one, as in the labels.
                corners = ops.xywhr2xyxyxyxy(boxes)  # type: ignore[no-untyped-call]
                boxes = torch.cat([corners.amin(dim=1), corners.amax(dim=1)], dim=1)
            boxes = ops.scale_boxes(
                shape,
                boxes.clone(),
                batch["ori_shape"][position],
                ratio_pad=batch["ratio_pad"][position],
            )
            labels = _array(found["cls"]).astype(np.int64)
            image_id = self._id_of_file[batch["im_file"][position]]
            self._predictions[image_id] = {
                "img_id": image_id,
                "labels": np.zeros_like(labels) if args.single_cls else labels,
                "scores": _array(found["conf"]),
                "boxes": _array(boxes),
            }


def _array(values: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = values.detach().cpu().numpy()
    return array

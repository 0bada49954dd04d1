"""What the detector predicted in a validation, brought together from all ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.dist import all_gather_object

from hardmine.detections import Detections
from hardmine.errors import InputError
from hardmine.records import ImageSet

Prediction = Mapping[str, Any]


class Predictions:
    """Collects boxes, labels and scores, off the device, and masks where they are asked for.

    Args:
        masks: Whether to keep masks and how sure of them the detector is.
    """

    def __init__(self, *, masks: bool) -> None:
        self._masks = masks
        self.begin()

    def begin(self) -> None:
        """Forget the last validation."""
        self._kept: list[Prediction] = []
        self._failure = ""

    def collect(self, outputs: Sequence[Any]) -> None:
        """Keep what was predicted in a batch."""
        if self._failure:
            return
        try:
            self._kept.extend(_kept(sample, masks=self._masks) for sample in outputs)
        except Exception as error:  # a validation goes on; ``gather`` tells it, on all ranks alike
            self._failure = f"{type(error).__name__}: {error}"

    def gather(self) -> list[Prediction]:
        """One prediction an image, from all ranks; all ranks must call this.

        Raises:
            InputError: If a prediction has another form.
        """
        parts, failures = zip(*all_gather_object((self._kept, self._failure)), strict=True)
        self.begin()
        if any(failures):
            raise InputError(
                "the predictions are not of pred_instances with bboxes, labels and scores: "
                f"{next(filter(None, failures))}"
            )
        # The last images of the ranks may be padding.
        return list({each["img_id"]: each for part in parts for each in part}.values())


def boxes_of(found: Sequence[Prediction], images: ImageSet) -> Detections:
    """The predicted boxes as detections on an image set.

    Raises:
        InputError: If an image is not in the set.
    """
    ids = [each["img_id"] for each in found]
    rows = images.rows_of(np.array(ids)) if ids else np.zeros(0, np.int64)
    if (rows < 0).any():
        raise InputError(
            f"{int((rows < 0).sum())} validated images are not in the validation data set, "
            f"such as {ids[int(np.argmax(rows < 0))]!r}"
        )

    def column(name: str, kind: type, empty: tuple[int, ...]) -> npt.NDArray[Any]:
        return np.concatenate([np.zeros(empty), *(each[name] for each in found)]).astype(kind)

    return Detections(
        image_rows=np.repeat(rows, [len(each["scores"]) for each in found]),
        class_rows=column("labels", np.int64, (0,)),
        boxes=column("boxes", np.float64, (0, 4)),
        scores=column("scores", np.float64, (0,)),
    )


def _kept(sample: Any, *, masks: bool) -> Prediction:
    found = sample.pred_instances
    kept = {
        "img_id": sample.img_id,
        "labels": _numpy(found.labels),
        "scores": _numpy(found.scores),
        "boxes": _numpy(found.bboxes),
    }
    if masks:
        # Some detectors are less sure of a mask than of its box.
        kept["mask_scores"] = _numpy(found.get("mask_scores", found.scores))
        kept["masks"] = _encoded(found.get("masks"))
    return kept


def _encoded(masks: Any) -> Any:
    """Masks of one image, (n, H, W) or encoded already, as run lengths."""
    return encode_mask_results(_numpy(masks)) if isinstance(masks, torch.Tensor) else masks


def _numpy(values: Any) -> npt.NDArray[Any]:
    tensor = getattr(values, "tensor", values)
    array: npt.NDArray[Any] = tensor.detach().cpu().numpy()
    return array

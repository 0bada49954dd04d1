"""The boxes that a model predicts in the Trainer's evaluation, read by its image processor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import SequentialSampler

from hardmine.errors import HardmineError, InputError
from hardmine.hosts import image_ids, predicted_boxes
from hardmine.records import ImageSet, names_to_rows

_ADVICE = (
    "let each label have its image_id, or give val_images in the order of eval_dataset, or "
    "HardMining(detections=...)"
)


def boxes_of_evaluation(
    trainer: Any, images: ImageSet, detections: Callable[[Any], Any] | None
) -> EvaluatedBoxes | None:
    """Let a trainer's evaluation keep the predicted boxes; None if it cannot tell them.

    Args:
        trainer: A Trainer with ``compute_metrics``, which gets the predictions anyway.
        images: The evaluated images.
        detections: Reads an ``EvalPrediction``; the image processor does so if None.
    """
    if trainer.compute_metrics is None:
        return None
    read: Any = detections
    if read is None:
        if not hasattr(trainer.processing_class, "post_process_object_detection"):
            return None
        read = _Reader(trainer, images)
    boxes = EvaluatedBoxes(trainer.compute_metrics, read)
    trainer.compute_metrics = boxes
    return boxes


class EvaluatedBoxes:
    """A ``compute_metrics`` that also reads the predicted boxes.

    Args:
        compute_metrics: The trainer's own, whose result is passed on.
        read: From an ``EvalPrediction`` to detections.
    """

    def __init__(self, compute_metrics: Callable[..., Any], read: Callable[[Any], Any]) -> None:
        self._compute_metrics = compute_metrics
        self._read = read
        self._detections: Any = None
        self._failure = "the evaluation called no compute_metrics"

    def __call__(self, evaluated: Any, *args: Any, **options: Any) -> Any:
        """Compute the metrics; boxes that cannot be read are reported by ``take``."""
        try:
            self._detections, self._failure = self._read(evaluated), ""
        except Exception as error:  # evaluation must go on
            named = isinstance(error, HardmineError)
            self._failure = str(error) if named else f"{type(error).__name__}: {error}"
        return self._compute_metrics(evaluated, *args, **options)

    def take(self) -> Any:
        """The boxes of the last evaluation, once."""
        detections, self._detections = self._detections, None
        if self._failure:
            raise InputError(self._failure)
        return detections


class _Reader:
    """Reads the outputs of DETR and its kind."""

    def __init__(self, trainer: Any, images: ImageSet) -> None:
        self._trainer = trainer
        self._images = images

    def __call__(self, evaluated: Any) -> Any:
        # A tuple is one batch, a list several: eval_do_concat_batches=False.
        several = isinstance(evaluated.predictions, list)
        batches = evaluated.predictions if several else [evaluated.predictions]
        pairs = [_logits_and_boxes(batch) for batch in batches]
        count = sum(len(logits) for logits, _ in pairs)
        ids = image_ids(evaluated.label_ids) or self._ids_in_order(evaluated.label_ids)
        if len(ids) != count:
            raise InputError(
                f"the evaluation predicted {count} images, and the labels are of {len(ids)}; "
                + _ADVICE
            )
        rows = self._images.rows_of(np.array(ids))
        if (rows < 0).any():
            raise InputError(
                f"{int((rows < 0).sum())} evaluated images are not in val_images, such as image_id "
                f"{ids[int(np.argmax(rows < 0))]!r}; {_ADVICE}"
            )
        class_rows = self._class_rows()
        predictions: list[dict[str, Any]] = []
        for logits, boxes in pairs:
            start = len(predictions)
            own = rows[start : start + len(logits)]
            found = self._trainer.processing_class.post_process_object_detection(
                SimpleNamespace(logits=logits, pred_boxes=boxes),
                threshold=0.0,
                target_sizes=torch.from_numpy(self._images.sizes[own]),
            )
            for row, each in zip(own.tolist(), found, strict=True):
                labels = class_rows[each["labels"].numpy()]
                known = labels >= 0
                predictions.append(
                    {
                        "img_id": self._images.ids[row],
                        "labels": labels[known],
                        "scores": each["scores"].numpy()[known],
                        "boxes": each["boxes"].numpy()[known],
                    }
                )
        return predicted_boxes(predictions, self._images)

    def _ids_in_order(self, labels: Any) -> Sequence[Any]:
        """The ids of ``val_images``, if the evaluation has their order."""
        sampler = self._trainer._get_eval_sampler(self._trainer.eval_dataset)
        if sampler is not None and not isinstance(sampler, SequentialSampler):
            raise InputError(
                "the order of the evaluated images cannot be told, as the evaluation draws with "
                f"{type(sampler).__name__}; {_ADVICE}"
            )
        class_rows, counts = self._class_rows(), self._images.class_counts
        for row, classes in enumerate(_class_labels(labels)[: len(self._images)]):
            present = class_rows[classes]
            if not np.isin(present[present >= 0], counts[row].indices).all():
                raise InputError(
                    f"the labels of image {self._images.ids[row]!r} in the evaluation are not "
                    f"those in val_images; {_ADVICE}"
                )
        return list(self._images.ids)

    def _class_rows(self) -> npt.NDArray[np.int64]:
        """Row in the class names of each of the model's labels; -1 for one that they lack."""
        of_label = self._trainer.model.config.id2label
        names = [of_label[label] for label in range(max(of_label) + 1)]
        rows = names_to_rows(names, self._images.class_names)
        if (rows >= 0).any():
            return np.asarray(rows)
        if len(names) != len(self._images.class_names):
            raise InputError(
                f"the model's id2label has {len(names)} names such as {names[0]!r}, and val_images "
                f"has {len(self._images.class_names)} classes; give the model id2label with the "
                "names of the classes"
            )
        return np.arange(len(names))


def _class_labels(labels: Any) -> list[npt.NDArray[np.int64]]:
    """The labels' classes, image by image; empty if the labels have another form than DETR's."""
    if isinstance(labels, Mapping):
        return [np.asarray(labels["class_labels"], np.int64)] if "class_labels" in labels else []
    if isinstance(labels, list | tuple):
        return [classes for each in labels for classes in _class_labels(each)]
    return []


def _logits_and_boxes(outputs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """The first logits (B, Q, C) that are followed by boxes (B, Q, 4) in a batch of outputs."""
    arrays = [each for each in outputs if getattr(each, "ndim", 0) == 3]
    for logits, boxes in pairwise(arrays):
        if boxes.shape == (*logits.shape[:2], 4):
            return torch.as_tensor(logits).cpu(), torch.as_tensor(boxes).cpu()
    raise InputError(
        "the model's outputs have no logits that are followed by boxes; give "
        "HardMining(detections=...)"
    )

"""The boxes that torchmetrics' MeanAveragePrecision keeps, on the images they belong to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler, SequentialSampler

from hardmine.detections import Detections, box_overlaps
from hardmine.errors import InputError
from hardmine.hosts import gather_predictions, image_ids, predicted_boxes
from hardmine.records import ImageSet

Floats = npt.NDArray[np.float64]

_ADVICE = (
    "give val_images in the order of the validation data set, let each target have its image_id, "
    "or give HardMining(detections=...)"
)
_SAME_BOX = 0.5  # IoU: labels may have been rounded on their way into the metric


class KeptBoxes:
    """Reads the metric after each validation, before the module resets it.

    Which image a box belongs to is told by ``image_id`` in the targets of the batches, or by the
    order of the loader. The true boxes that the metric keeps must agree.

    Args:
        images: The validation images with their labels.
        first_label: Label of the first class: 0, or 1 as in torchvision. The true labels tell if
            None.
    """

    def __init__(self, images: ImageSet, *, first_label: int | None) -> None:
        self._images = images
        self._first_label = first_label
        self.begin()

    def begin(self) -> None:
        """Start a validation."""
        self._ids: list[Any] = []
        self._kept: list[dict[str, Any]] = []
        self._failure = ""

    def note(self, batch: Any) -> None:
        """Note which images a batch has."""
        self._ids += image_ids(batch)

    def read(self, metric: Any, loaders: Any) -> None:
        """Read this rank's part.

        Args:
            metric: The module's ``MeanAveragePrecision``.
            loaders: The trainer's ``val_dataloaders``.
        """
        try:
            ids = self._ids or ids_in_order(loaders, self._images)
            self._kept = kept_predictions(metric, ids, self._images, first_label=self._first_label)
        except InputError as error:  # raised where all ranks read the validation
            self._failure = str(error)
        except Exception as error:  # validation must go on, whatever a metric's version keeps
            self._failure = f"{type(error).__name__}: {error}"

    def gather(self) -> Detections:
        """The boxes of all ranks. All ranks must call this."""
        return predicted_boxes(gather_predictions(self._kept, self._failure), self._images)


def ids_in_order(loaders: Any, images: ImageSet) -> list[Any]:
    """Ids of the images of a validation loader, in the order in which this rank gets them.

    Args:
        loaders: A ``DataLoader`` whose data set has the order of ``images``, or a list of one.
        images: The validation images.

    Raises:
        InputError: If the order cannot be told.
    """
    loader = loaders[0] if isinstance(loaders, list) and len(loaders) == 1 else loaders
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, SequentialSampler | DistributedSampler):
        raise InputError(
            "the order of the validated images cannot be told, as the validation draws with "
            f"{type(loader if sampler is None else sampler).__name__}; {_ADVICE}"
        )
    if len(loader.dataset) != len(images):
        raise InputError(
            f"the validation data set has {len(loader.dataset)} images and val_images has "
            f"{len(images)}; {_ADVICE}"
        )
    return list(images.ids[np.fromiter(sampler, np.int64)])


def kept_predictions(
    metric: Any, ids: Sequence[Any], images: ImageSet, *, first_label: int | None = None
) -> list[dict[str, Any]]:
    """The predictions that a metric keeps until its reset, in pixels of the image files.

    The metric has boxes of resized images. How they were resized is told by the true boxes.

    Args:
        metric: torchmetrics' ``MeanAveragePrecision`` after a validation.
        ids: Image ids in the order in which the metric was updated.
        images: The validation images with their labels.
        first_label: Label of the first class; the true labels tell if None.

    Returns:
        For each image what ``hardmine.hosts.predicted_boxes`` takes.

    Raises:
        InputError: If the metric keeps no boxes, or its true boxes are not those of the images.
    """
    count = len(metric.detection_labels)
    if len(metric.detection_box) != count:
        raise InputError(
            'MeanAveragePrecision keeps masks alone; make it with iou_type=("bbox", "segm")'
        )
    if len(ids) != count:
        raise InputError(
            f"MeanAveragePrecision was updated with {count} images, and the validation has "
            f"{len(ids)}; update it with each of them once, or give HardMining(detections=...)"
        )

    def read(first: int) -> list[dict[str, Any]]:
        return [
            _prediction(metric, position, images, image_id, first)
            for position, image_id in enumerate(ids)
        ]

    if first_label is not None:
        return read(first_label)
    try:
        return read(0)
    except InputError as error:
        try:
            return read(1)
        except InputError:
            raise error from None


def _prediction(
    metric: Any, position: int, images: ImageSet, image_id: Any, first: int
) -> dict[str, Any]:
    """One image's prediction."""
    [row] = images.rows_of(np.array([image_id])).tolist()
    true = _corners(metric.groundtruth_box[position])
    counted = (_array(metric.groundtruth_crowds[position]) == 0) & _has_area(true)
    classes = _array(metric.groundtruth_labels[position]).astype(np.int64) - first
    resize = None
    if row >= 0:
        resize = _resize(true[counted], classes[counted], *_labelled(images, row))
    if resize is None:
        raise InputError(
            f"the true boxes that MeanAveragePrecision keeps of image {image_id!r} are not its "
            f"labels in val_images; {_ADVICE}"
        )
    scale, offset = resize
    return {
        "img_id": image_id,
        "labels": _array(metric.detection_labels[position]).astype(np.int64) - first,
        "scores": _array(metric.detection_scores[position]),
        "boxes": _corners(metric.detection_box[position]) * scale + offset,
    }


def _labelled(images: ImageSet, row: int) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Boxes and classes of an image, without groups and empty boxes, which many leave out."""
    instances = images.instances
    if instances is None:
        raise InputError("val_images have no labels; load them with their annotations")
    own = slice(*np.searchsorted(instances.image_rows, [row, row + 1]).tolist())
    counted = ~instances.crowd[own] & _has_area(instances.boxes[own])
    boxes = instances.boxes[own][counted].astype(np.float64)
    return boxes, instances.class_rows[own][counted].astype(np.int64)


def _has_area(boxes: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    return np.asarray((boxes[:, 2:] > boxes[:, :2]).all(axis=1))


def _resize(
    true: Floats, true_classes: Any, labelled: Floats, classes: Any
) -> tuple[Floats, Floats] | None:
    """Scale and offset of x and y that turn the true boxes into the labelled ones.

    Returns:
        (4,) each; None if there are none. Where nothing is labelled the boxes stay as they are: no
        object there can be found.
    """
    unchanged = np.ones(4), np.zeros(4)
    if not len(labelled):
        return unchanged if not len(true) else None
    if not len(true):
        return None
    start, extent = true[:, :2].min(axis=0), np.ptp(true.reshape(-1, 2), axis=0)
    goal, goal_extent = labelled[:, :2].min(axis=0), np.ptp(labelled.reshape(-1, 2), axis=0)
    scale = np.tile(goal_extent / extent, 2)
    offset = np.tile(goal, 2) - np.tile(start, 2) * scale
    same = box_overlaps(true * scale + offset, labelled) >= _SAME_BOX
    same &= true_classes[:, None] == classes
    return (scale, offset) if same.any(axis=0).all() and same.any(axis=1).all() else None


def _corners(boxes: Any) -> Floats:
    """The metric's boxes, which it keeps as corner and size, as two corners."""
    xywh = _array(boxes).astype(np.float64).reshape(-1, 4)
    return np.concatenate([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]], axis=1)


def _array(values: Any) -> npt.NDArray[Any]:
    array: npt.NDArray[Any] = values.detach().cpu().numpy()
    return array

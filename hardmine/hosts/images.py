"""A trainer's images, labels and predictions as hardmine's records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Detections
from hardmine.distributed import RankGroup
from hardmine.errors import InputError
from hardmine.records import ImageSet, names_to_rows


def unique_ids(ids: Sequence[Any]) -> list[Any] | None:
    """Image ids for ``images_from``; None, which makes paths the ids, if two are equal.

    That happens where data sets were joined.

    >>> unique_ids([7, 9]), unique_ids([7, 7])
    ([7, 9], None)
    """
    return list(ids) if len(set(ids)) == len(ids) else None


def predicted_boxes(predictions: Sequence[Mapping[str, Any]], images: ImageSet) -> Detections:
    """The predicted boxes as detections on an image set.

    Args:
        predictions: For each image ``img_id``, ``labels``, ``scores`` and ``boxes`` (xyxy).
        images: The images that were validated.

    Raises:
        InputError: If the set lacks an image, or an image of the set was not validated.
    """
    ids = [each["img_id"] for each in predictions]
    rows = images.rows_of(np.array(ids)) if ids else np.zeros(0, np.int64)
    if (rows < 0).any():
        raise InputError(
            f"{int((rows < 0).sum())} validated images are not in the validation data set, "
            f"such as img_id {ids[int(np.argmax(rows < 0))]!r}"
        )
    if len(rows) < len(images):
        raise InputError(
            f"only {len(rows)} of {len(images)} validation images have been validated; the objects "
            "of the others would count as missed. Validate all of them, or leave them out of the "
            "validation images"
        )

    def column(name: str, dtype: type, empty_shape: tuple[int, ...]) -> npt.NDArray[Any]:
        columns = [np.zeros(empty_shape), *(each[name] for each in predictions)]
        return np.concatenate(columns).astype(dtype)

    return Detections(
        image_rows=np.repeat(rows, [len(each["scores"]) for each in predictions]),
        class_rows=column("labels", np.int64, (0,)),
        boxes=column("boxes", np.float64, (0, 4)),
        scores=column("scores", np.float64, (0,)),
    )


def gather_predictions(
    predictions: Sequence[Mapping[str, Any]], failure: str = ""
) -> list[Mapping[str, Any]]:
    """One prediction an image, from all ranks. All ranks must call this.

    Args:
        predictions: Of this rank, as ``predicted_boxes`` takes them. Ranks may repeat images, which
            they get as padding.
        failure: Why this rank's could not be read; empty if they could.

    Raises:
        InputError: If those of any rank could not be read.
    """
    with RankGroup() as ranks:
        parts, failures = zip(*ranks.gather((list(predictions), failure)), strict=True)
    if any(failures):
        raise InputError(next(filter(None, failures)))
    return list({each["img_id"]: each for part in parts for each in part}.values())


def image_ids(batch: Any) -> list[Any]:
    """All values of ``image_id`` in a batch, in order, as the targets of most data sets hold them.

    >>> image_ids(([0.5, 0.1], [{"image_id": 7, "labels": []}, {"image_id": np.array([9])}]))
    [7, 9]
    """
    if isinstance(batch, Mapping):
        if "image_id" not in batch:
            return [found for each in batch.values() for found in image_ids(each)]
        ids = batch["image_id"]
        values = ids.tolist() if hasattr(ids, "tolist") else ids
        return list(values) if isinstance(values, list | tuple) else [values]
    if isinstance(batch, list | tuple):
        return [found for each in batch for found in image_ids(each)]
    return []


def num_instances(images: ImageSet, class_names: Sequence[str]) -> tuple[int, ...]:
    """Labelled objects of each of some classes; 0 for a class that the images lack."""
    counts = np.asarray(images.class_counts.sum(axis=0)).ravel()
    rows = names_to_rows(class_names, images.class_names)
    return tuple(np.where(rows >= 0, counts[rows], 0).tolist())

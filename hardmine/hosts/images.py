"""A trainer's images, labels and predictions as hardmine's records."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections import Detections
from hardmine.distributed import RankGroup
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances, names_to_rows


def image_set(
    paths: Sequence[str],
    *,
    ids: npt.ArrayLike | None = None,
    sizes: npt.ArrayLike,
    class_names: Sequence[str],
    image_rows: npt.ArrayLike,
    class_rows: npt.ArrayLike,
    boxes: npt.ArrayLike,
    crowd: npt.ArrayLike | None = None,
) -> ImageSet:
    """Put an image set together from what a trainer's data set holds.

    Args:
        paths: (N,) absolute paths, each once.
        ids: (N,) ids. If None, or if two are equal, which happens where data sets were joined, the
            path below the common folder becomes the id.
        sizes: (N, 2) height and width in pixels.
        class_names: (C,) in the order of the labels.
        image_rows: (M,) the image of each box, ascending.
        class_rows: (M,) its class.
        boxes: (M, 4) xyxy in pixels.
        crowd: (M,) whether it is a group; none is if None.

    Raises:
        InputError: If there are no images.
    """
    if not len(paths):
        raise InputError(
            "the data set holds no images; check its filter_cfg, its classes and its paths"
        )
    root = os.path.commonpath([os.path.dirname(path) for path in paths])  # noqa: PTH120
    names = [Path(os.path.relpath(path, root)).as_posix() for path in paths]
    if ids is None or len(np.unique(np.asarray(ids))) < len(names):
        ids = names
    xyxy = np.asarray(boxes, np.float32).reshape(-1, 4)
    count = len(xyxy)
    return ImageSet(
        root=Path(root),
        ids=np.asarray(ids),
        paths=tuple(names),
        sizes=np.asarray(sizes, np.int32),
        class_names=tuple(class_names),
        class_ids=np.arange(len(class_names)),
        instances=Instances(
            image_rows=np.asarray(image_rows, np.int32).reshape(-1),
            class_rows=np.asarray(class_rows, np.int32).reshape(-1),
            boxes=xyxy,
            areas=(xyxy[:, 2:] - xyxy[:, :2]).prod(axis=1),
            crowd=np.zeros(count, bool) if crowd is None else np.asarray(crowd, bool),
            ids=np.arange(count),
        ),
    )


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

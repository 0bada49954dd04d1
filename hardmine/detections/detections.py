"""Detections of a detector, and which labelled object each of them found."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.detections.matching import Group, box_overlaps, match_group
from hardmine.errors import InputError
from hardmine.records import ImageSet, Instances

COCO_THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())


@dataclass(frozen=True)
class Detections:
    """D scored boxes of a detector on the images of a set.

    Attributes:
        image_rows: (D,) int64, rows of the image set.
        class_rows: (D,) int64, positions in its class names.
        boxes: (D, 4) float64 xyxy in pixels.
        scores: (D,) float64, higher = surer.
    """

    image_rows: npt.NDArray[np.int64]
    class_rows: npt.NDArray[np.int64]
    boxes: npt.NDArray[np.float64]
    scores: npt.NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.scores)

    def take(self, chosen: npt.NDArray[Any]) -> Detections:
        """Keep some, by mask or position."""
        return Detections(
            self.image_rows[chosen],
            self.class_rows[chosen],
            self.boxes[chosen],
            self.scores[chosen],
        )


@dataclass(frozen=True)
class Matches:
    """Which object each detection found, at each of T overlaps, by COCO's rules.

    Detections are sorted by class, the surest first; equal scores by image id.

    Attributes:
        detections: D detections, those beyond the limit an image left out.
        source_rows: (D,) int64 position of each in the detections that were given.
        iou_thresholds: (T,) float64 smallest overlap that counts as found.
        found: (D, T) int64 row of the instance found in the image set's instances; -1 for none.
        ignored: (D, T) bool, neither right nor wrong: found a crowd or an object out of the range
            of areas, or (LVIS) stands where the labels are not exhaustive.
        counted: (M,) bool, instances that a detector should find: no crowds, area in range.
        instance_images: (M,) int32 image of each instance.
        instance_classes: (M,) int32 class of each instance.
        num_images: N.
        num_classes: C.
    """

    detections: Detections
    source_rows: npt.NDArray[np.int64]
    iou_thresholds: npt.NDArray[np.float64]
    found: npt.NDArray[np.int64]
    ignored: npt.NDArray[np.bool_]
    counted: npt.NDArray[np.bool_]
    instance_images: npt.NDArray[np.int32]
    instance_classes: npt.NDArray[np.int32]
    num_images: int
    num_classes: int


def load_detections(
    source: str | os.PathLike[str] | Iterable[Mapping[str, Any]] | Detections, images: ImageSet
) -> Detections:
    """Read detections in COCO's results form: image_id, category_id, bbox (xywh) and score.

    Args:
        source: A .json file, its content, or Detections as they are.
        images: What the ids refer to.

    Raises:
        InputError: If the file is no list of results, an id is not in the image set, or a field
            is missing or not finite.
    """
    if isinstance(source, Detections):
        return source
    where = "detections"
    if isinstance(source, str | os.PathLike):
        where = str(source)
        rows = _read_results(Path(source))
    else:
        rows = list(source)
    try:
        image_ids = np.array([row["image_id"] for row in rows])
        class_ids = np.array([row["category_id"] for row in rows], np.int64)
        boxes = np.array([row["bbox"] for row in rows], np.float64).reshape(-1, 4)
        scores = np.array([row["score"] for row in rows], np.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: expected a list of image_id, category_id, bbox (4 numbers) and score, "
            f"but {error!r}"
        ) from None
    numbers = np.column_stack([boxes, scores])
    if not np.isfinite(numbers).all():
        broken = int(np.flatnonzero(~np.isfinite(numbers).all(axis=1))[0])
        raise InputError(
            f"{where}: bbox and score must be finite numbers, but entry {broken} has bbox "
            f"{boxes[broken].tolist()} and score {scores[broken]}; did the detector diverge?"
        )
    image_rows = images.rows_of(image_ids)
    place = {class_id: row for row, class_id in enumerate(images.class_ids.tolist())}
    class_rows = np.array([place.get(class_id, -1) for class_id in class_ids.tolist()], np.int64)
    for name, found, ids in (("image", image_rows, image_ids), ("class", class_rows, class_ids)):
        if (found < 0).any():
            unknown = np.unique(ids[found < 0])
            raise InputError(
                f"{where}: {len(unknown)} {name} ids are not in the image set, the first "
                f"{unknown[0]!r}; was the detector run on other images?"
            )
    boxes[:, 2:] += boxes[:, :2]
    return Detections(image_rows, class_rows, boxes, scores)


def _read_results(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(f"no detections file at {path}")
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as COCO results json: {error}") from error
    if not isinstance(rows, list):
        raise InputError(
            f"{path}: expected a list of detections, got {type(rows).__name__}; "
            "is it a file of labels?"
        )
    return rows


def match_detections(
    ground_truth: ImageSet,
    detections: Any,
    *,
    iou_thresholds: Sequence[float] = COCO_THRESHOLDS,
    max_detections: int = 100,
    area_range: tuple[float, float] = (0.0, np.inf),
) -> Matches:
    """Match detections to labelled objects as COCO's evaluator does.

    In each image and class the surest detection takes the object it overlaps most, if it is free
    and the overlap reaches the threshold; then the next. Crowds may be taken any number of times
    and count neither way. In federated sets (LVIS) detections of classes that an image was not
    checked for are left out, and wrong ones are ignored where it may hold unlabelled objects.

    Args:
        ground_truth: Images with labels.
        detections: Whatever ``load_detections`` reads.
        iou_thresholds: Overlaps at which to match, each on its own.
        max_detections: How many an image and class, the surest.
        area_range: Smallest and largest area in square pixels of objects that count. What is
            detected outside of it counts neither way, so a box turned inside out never does.

    Raises:
        InputError: If the images have no labels.
    """
    instances = ground_truth.instances
    if instances is None:
        raise InputError("cannot match detections: the image set has no labels")
    given = load_detections(detections, ground_truth)
    order = _rank(given, ground_truth, max_detections)
    kept = given.take(order)
    thresholds = np.asarray(iou_thresholds, np.float64)
    counted = ~instances.crowd
    counted &= (instances.areas >= area_range[0]) & (instances.areas <= area_range[1])
    # Labels come as decimals: the shortest one that a float32 stands for is what was written, and
    # overlaps of exactly 0.5 or 0.75 are common among such boxes.
    boxes = instances.boxes.astype(str).astype(np.float64)
    found = np.full((len(kept), len(thresholds)), -1, np.int64)
    # Objects that do not count are looked at last, and take no detection from those that do.
    inst_order = np.lexsort((~counted, instances.class_rows, instances.image_rows))
    for rows, targets in _groups(kept, instances, inst_order, len(ground_truth.class_names)):
        group = Group(
            box_overlaps(kept.boxes[rows], boxes[targets], instances.crowd[targets]),
            counted[targets],
            instances.crowd[targets],
        )
        place = match_group(group, thresholds)
        found[rows] = np.where(place >= 0, targets[place], -1)
    ignored = (found >= 0) & ~counted[found] if len(counted) else np.zeros(found.shape, bool)
    areas = np.prod(kept.boxes[:, 2:] - kept.boxes[:, :2], axis=1)
    outside = (areas < area_range[0]) | (areas > area_range[1])
    ignored |= (found < 0) & outside[:, None]
    if ground_truth.not_exhaustive is not None:
        open_world = ground_truth.not_exhaustive[kept.image_rows, kept.class_rows]
        ignored |= (found < 0) & np.asarray(open_world).reshape(-1, 1).astype(bool)
    return Matches(
        detections=kept,
        source_rows=order,
        iou_thresholds=thresholds,
        found=found,
        ignored=ignored,
        counted=counted,
        instance_images=instances.image_rows,
        instance_classes=instances.class_rows,
        num_images=len(ground_truth),
        num_classes=len(ground_truth.class_names),
    )


def _rank(given: Detections, images: ImageSet, limit: int) -> npt.NDArray[np.int64]:
    """Positions sorted by class, score and image id, without those over the limit."""
    allowed = np.arange(len(given))
    if images.negatives is not None:
        # An image was checked for a class if it is labelled with it or verified not to hold it.
        checked = (images.class_counts > 0) + (images.negatives > 0)
        kept = np.asarray(checked[given.image_rows, given.class_rows]).ravel().astype(bool)
        allowed = np.flatnonzero(kept)
    image, label = given.image_rows[allowed], given.class_rows[allowed]
    order = np.lexsort((allowed, -given.scores[allowed], label, image))
    key = image[order] * len(images.class_names) + label[order]
    starts = np.flatnonzero(np.diff(key, prepend=-1))
    nth = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
    allowed = allowed[order[nth < limit]]
    id_rank = np.empty(len(images), np.int64)
    id_rank[np.argsort(images.ids, kind="stable")] = np.arange(len(images))
    keys = (allowed, id_rank[given.image_rows[allowed]])
    return allowed[np.lexsort((*keys, -given.scores[allowed], given.class_rows[allowed]))]


def _groups(
    kept: Detections, instances: Instances, inst_order: npt.NDArray[np.int64], num_classes: int
) -> Iterable[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Detections (surest first) and instances (counted first) that share image and class."""
    det_key = kept.image_rows * num_classes + kept.class_rows
    inst_key = instances.image_rows.astype(np.int64) * num_classes + instances.class_rows
    det_order = np.argsort(det_key, kind="stable")
    det_key, inst_key = det_key[det_order], inst_key[inst_order]
    shared = np.intersect1d(det_key, inst_key)
    bounds = [
        np.searchsorted(keys, shared, s) for keys in (det_key, inst_key) for s in ("left", "right")
    ]
    for det_start, det_end, inst_start, inst_end in zip(*(b.tolist() for b in bounds), strict=True):
        yield det_order[det_start:det_end], inst_order[inst_start:inst_end]

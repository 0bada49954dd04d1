"""Time to find and to measure contexts on 5,000 images, compared with COCO's evaluation.

The set has 5,000 generated images, 36,000 objects of 80 classes and 490,000 detections: most
objects are found, slightly displaced, and each image has 90 false positives.
"""

from __future__ import annotations

import contextlib
import io
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from hardmine.detections import Detections, average_precision_from_matches, match_detections
from hardmine.index import index_from_regions
from hardmine.index.base import Index
from hardmine.mining.conditions import ConditionFinder, vocabulary
from hardmine.mining.confusion import measure_confusion
from hardmine.mining.contexts import measure_contexts
from hardmine.records import ImageSet, Instances

NUM_IMAGES, NUM_CLASSES, DIM, REGIONS, FALSE_POSITIVES = 5000, 80, 512, 11, 90


class RandomTexts:
    """Each text a fixed random direction."""

    dim = DIM
    fingerprint = ""

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        seeds = [zlib.crc32(text.encode()) for text in texts]
        rows = [torch.randn(DIM, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        return torch.nn.functional.normalize(torch.stack(rows), dim=-1)


def random_boxes(rng: np.random.Generator, count: int) -> np.ndarray:
    corner, size = rng.uniform(0, 400, (count, 2)), rng.uniform(10, 200, (count, 2))
    return np.concatenate([corner, corner + size], axis=1)


def make_validation() -> tuple[ImageSet, Detections]:
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, NUM_CLASSES + 1)
    shares /= shares.sum()
    rows = np.repeat(np.arange(NUM_IMAGES), rng.poisson(7.3, NUM_IMAGES))
    classes, boxes = rng.choice(NUM_CLASSES, len(rows), p=shares), random_boxes(rng, len(rows))
    images = ImageSet(
        root=Path(),
        ids=np.arange(NUM_IMAGES),
        paths=tuple(f"{row}.jpg" for row in range(NUM_IMAGES)),
        sizes=np.full((NUM_IMAGES, 2), 640, np.int32),
        class_names=tuple(f"class{row}" for row in range(NUM_CLASSES)),
        class_ids=np.arange(NUM_CLASSES),
        instances=Instances(
            rows.astype(np.int32),
            classes.astype(np.int32),
            boxes.astype(np.float32),
            (boxes[:, 2:] - boxes[:, :2]).prod(axis=1).astype(np.float32),
            np.zeros(len(rows), bool),
            np.arange(len(rows)),
        ),
    )
    hit = rng.random(len(rows)) < 0.7
    wrong = NUM_IMAGES * FALSE_POSITIVES
    detections = Detections(
        np.concatenate([rows[hit], np.repeat(np.arange(NUM_IMAGES), FALSE_POSITIVES)]),
        np.concatenate([classes[hit], rng.choice(NUM_CLASSES, wrong, p=shares)]),
        np.concatenate(
            [boxes[hit] + np.tile(rng.normal(0, 4, (hit.sum(), 2)), 2), random_boxes(rng, wrong)]
        ),
        np.concatenate([rng.beta(5, 2, hit.sum()), rng.beta(1, 8, wrong)]),
    )
    return images, detections


def evaluate(images: ImageSet, detections: Detections) -> tuple[float, np.ndarray]:
    """CPU seconds of pycocotools' own evaluation, without reading files, and its AP by class."""
    instances = images.instances
    assert instances is not None

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    truth = COCO()
    truth.dataset = {
        "info": {},
        "images": [{"id": row, "height": 640, "width": 640} for row in range(len(images))],
        "categories": [{"id": row, "name": name} for row, name in enumerate(images.class_names)],
        "annotations": [
            {
                "id": row + 1,
                "image_id": int(instances.image_rows[row]),
                "category_id": int(instances.class_rows[row]),
                "bbox": xywh(instances.boxes[row]),
                "area": float(instances.areas[row]),
                "iscrowd": 0,
            }
            for row in range(len(instances))
        ],
    }
    results = [
        {"image_id": image, "category_id": label, "bbox": xywh(box), "score": score}
        for image, label, box, score in zip(
            detections.image_rows.tolist(),
            detections.class_rows.tolist(),
            detections.boxes,
            detections.scores.tolist(),
            strict=True,
        )
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")

        def run() -> None:
            evaluation.evaluate()
            evaluation.accumulate()

        took = seconds(run)
    return took, evaluation.eval["precision"][:, :, :, 0, 2].mean(axis=(0, 1))


def seconds(work: Callable[[], object]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


def make_val_index(images: ImageSet) -> Index:
    """Random regions of the validation images."""
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((NUM_IMAGES * REGIONS, DIM), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return index_from_regions(
        vectors.astype(np.float16),
        np.arange(NUM_IMAGES + 1) * REGIONS,
        np.tile(np.float32([0, 0, 1, 1]), (len(vectors), 1)),
        np.ones(len(vectors), np.float32),
        ids=images.ids,
        root=images.root,
        paths=images.paths,
        sizes=images.sizes,
    )


@pytest.mark.benchmark
def test_measuring_contexts() -> None:
    images, detections = make_validation()
    index = make_val_index(images)
    contexts = ("at night", "in the rain", "in fog")
    peer, ap = evaluate(images, detections)
    lines = [("pycocotools' evaluation", peer)]
    lines.append(
        (
            "which classes are confused",
            seconds(lambda: measure_confusion(images, detections, images.class_names)),
        )
    )
    matches = match_detections(images, detections)
    lines.append(("matching", seconds(lambda: match_detections(images, detections))))
    for count in (1, 3):
        some = contexts[:count]
        took = seconds(lambda: measure_contexts(images, matches, index, some, RandomTexts()))  # noqa: B023
        lines.append((f"{count} context{'s' if count > 1 else ''}", took))
    finder = ConditionFinder(
        images, index, RandomTexts(), class_names=images.class_names, conditions=vocabulary()
    )
    for name in ("the first round", "later rounds"):
        took = seconds(lambda: finder.find(matches))
        lines.append((f"finding, {len(finder.conditions)} conditions, {name}", took))
    seconds_of = dict(lines)
    parts = (
        "matching",
        "3 contexts",
        f"finding, {len(finder.conditions)} conditions, later rounds",
    )
    lines.append(("later rounds, all of it", sum(seconds_of[part] for part in parts)))
    print(f"\n{NUM_IMAGES:,} images, {len(detections):,} detections, {NUM_CLASSES} classes")
    print(f"{'':46} {'CPU s':>8} {'× evaluation':>13}")
    for name, took in lines:
        print(f"{name:46} {took:8.2f} {took / peer:13.2f}")
    ours = average_precision_from_matches(matches)
    np.testing.assert_allclose(ours, ap, atol=1e-6)

"""Evaluation at LVIS size compared with scikit-learn, and on photos with intervals."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score

from hardmine.clusters import cluster
from hardmine.encoders.base import DenseFeatures
from hardmine.evaluation.classes import ClassEvaluation, evaluate_classes
from hardmine.evaluation.output import percent
from hardmine.evaluation.ranking import average_precision, average_precision_at, rank_hits
from hardmine.index import index_from_regions
from hardmine.records import ImageSet, Instances

pytestmark = pytest.mark.benchmark

SPECS = (
    "whole",
    "none",
    "none+whole",
    "kmeans:10",
    "kmeans:10+whole",
    "agglomerative:k=50",
    "agglomerative:k=50+whole",
    "pyramid:6",
    "pyramid:6+whole",
    "kmeans:3/6,context=0.4+whole",
)


def test_photos(photos, photo_images, photo_features, photo_encoder) -> None:
    """The paper's clusterings on 730 COCO photos; areas measured at 640 pixels."""
    texts = photo_encoder.encode_texts(photo_images.class_names).numpy()
    print(f"\n{'regions':30} {'vectors':>7} {'mAP@50':>18} {'mAP':>18} {'small-medium':>18}")
    for spec in SPECS:
        got = _photo_evaluation(photo_images, photo_features, texts, spec)
        cells = [
            percent(got.all_sizes.mean(), got.all_sizes.interval("ap_at_k")),
            percent(got.all_sizes.mean("ap"), got.all_sizes.interval("ap")),
            percent(got.small_medium.mean(), got.small_medium.interval("ap_at_k")),
        ]
        print(f"{spec:30} {got.vectors_per_image:7.1f} " + " ".join(f"{c:>18}" for c in cells))


def _photo_evaluation(
    images: ImageSet, features: DenseFeatures, texts: np.ndarray, spec: str
) -> ClassEvaluation:
    parts = [
        cluster(
            features.patches[start : start + 64], spec, whole=features.whole[start : start + 64]
        )
        for start in range(0, len(images), 64)
    ]
    counts = [
        torch.bincount(part.image_rows, minlength=min(64, len(images) - 64 * number))
        for number, part in enumerate(parts)
    ]
    index = index_from_regions(
        torch.cat([part.vectors for part in parts]).numpy(),
        np.concatenate([[0], torch.cat(counts).cumsum(0).numpy()]),
        torch.cat([part.boxes for part in parts]).numpy(),
        torch.cat([part.mass for part in parts]).numpy(),
        ids=images.ids,
        root=images.root,
        paths=images.paths,
        sizes=images.sizes,
    )
    return evaluate_classes(index, images, texts, reference_side=640, bootstrap=200)


def test_lvis_size() -> None:
    """20,000 images × 1203 classes: ranking and AP, without the scores."""
    rng = np.random.default_rng(0)
    num_images, num_classes, chunk = 20_000, 1203, 64
    scores = rng.normal(size=(chunk, num_images)).astype(np.float32)
    relevant = rng.random((chunk, num_images)) < 0.01
    started = time.perf_counter()
    for _ in range(0, num_classes, chunk):
        hits = rank_hits(scores, relevant, None)
        ours = average_precision(hits)
        average_precision_at(hits, 50)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    theirs = [average_precision_score(relevant[row], scores[row]) for row in range(chunk)]
    peer = (time.perf_counter() - started) * num_classes / chunk
    np.testing.assert_allclose(ours, theirs)
    print(f"\nranking and AP of 1203 × 20,000: {seconds:.1f} s; scikit-learn's AP {peer:.1f} s")


def test_lvis_size_with_its_scores() -> None:
    """The whole evaluation, on an index of a million regions."""
    rng = np.random.default_rng(0)
    num_images, num_classes, dim, regions = 20_000, 1203, 512, 50
    vectors = rng.standard_normal((num_images * regions, dim), dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    index = index_from_regions(
        vectors.astype(np.float16),
        np.arange(num_images + 1) * regions,
        np.tile(np.float32([0, 0, 1, 1]), (num_images * regions, 1)),
        np.full(num_images * regions, 1 / regions, np.float32),
        ids=np.arange(num_images),
        root=Path(),
        paths=tuple(map(str, range(num_images))),
        sizes=np.zeros((num_images, 2), np.int32),
    )
    del vectors
    texts = rng.standard_normal((num_classes, dim), dtype=np.float32)
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    images = _random_labels(rng, num_images, num_classes)
    started = time.perf_counter()
    got = evaluate_classes(index, images, texts)
    seconds = time.perf_counter() - started
    print(f"\nscores, ranking and AP: {seconds:.1f} s")
    # With random vectors the AP of a class is its share of the images.
    share = got.all_sizes.num_relevant.mean() / num_images
    assert got.all_sizes.mean("ap") == pytest.approx(share, rel=0.2)


def _random_labels(rng: np.random.Generator, num_images: int, num_classes: int) -> ImageSet:
    rows = np.sort(rng.integers(num_images, size=200_000)).astype(np.int32)
    count = len(rows)
    return ImageSet(
        root=Path(),
        ids=np.arange(num_images),
        paths=tuple(map(str, range(num_images))),
        sizes=np.zeros((num_images, 2), np.int32),
        class_names=tuple(f"class {row}" for row in range(num_classes)),
        class_ids=np.arange(num_classes),
        instances=Instances(
            rows,
            rng.integers(num_classes, size=count).astype(np.int32),
            np.tile(np.float32([0, 0, 1, 1]), (count, 1)),
            rng.uniform(0, 20_000, count).astype(np.float32),
            np.zeros(count, bool),
            np.arange(count),
        ),
    )

"""Loss of mAP@50 by smaller vectors, on photos and on generated scenes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from rich.console import Console
from rich.table import Table

from hardmine.clusters import cluster
from hardmine.datasets import load_images, open_image
from hardmine.encoders import Encoder, load_encoder
from hardmine.encoders.base import DenseFeatures
from hardmine.encoders.templates import embed_prompts
from hardmine.evaluation.classes import evaluate_classes
from hardmine.index import index_from_regions
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.store import Shard, Store, quantize_rows
from hardmine.records import ImageSet, Regions
from hardmine.scenes import write_scenes

pytestmark = pytest.mark.benchmark
CLUSTERS = "kmeans:10"


def mean_ap(index: ExactIndex, images: ImageSet, texts: npt.NDArray[np.float32]) -> float:
    """Return mAP@50 in points."""
    return 100 * evaluate_classes(index, images, texts).all_sizes.mean()


def full_index(regions: Regions, images: ImageSet) -> ExactIndex:
    offsets = np.searchsorted(regions.image_rows.numpy(), np.arange(len(images) + 1))
    return index_from_regions(
        regions.vectors.numpy(), offsets, ids=images.ids, paths=images.paths, clusters=CLUSTERS
    )


def with_vectors(
    index: ExactIndex, vectors: npt.NDArray[np.int8], scales: npt.NDArray[np.float32]
) -> ExactIndex:
    store, old = index.store, index.store.shards[0]
    shard = Shard(vectors, scales, old.offsets, old.boxes, old.mass, old.rows)
    return ExactIndex(
        Store(store.root, store.ids, store.paths, store.sizes, store.dim, "", CLUSTERS, (shard,))
    )


def product_quantized(vectors: npt.NDArray[np.float32], parts: int) -> npt.NDArray[np.float32]:
    """Vectors after product quantization to one byte per part."""
    faiss = pytest.importorskip("faiss")
    quantizer = faiss.ProductQuantizer(vectors.shape[1], parts, 8)
    quantizer.cp.min_points_per_centroid = 1  # avoids a printed warning
    quantizer.train(vectors)
    decoded = quantizer.decode(quantizer.compute_codes(vectors))
    return np.asarray(decoded / np.maximum(np.linalg.norm(decoded, axis=1, keepdims=True), 1))


def compare(
    name: str, regions: Regions, images: ImageSet, texts: npt.NDArray[np.float32]
) -> dict[str, float]:
    """Print a table for one set of images; return the points of mAP@50 that each format loses."""
    wide = regions.vectors.numpy().astype(np.float32)
    count, dim = wide.shape
    plain = full_index(regions, images)
    formats = {
        "float16": (2.0 * dim, plain),
        "int8": (dim + 4.0, with_vectors(plain, *quantize_rows(wide))),
    }
    for share in (4, 8, 16):
        decoded = torch.from_numpy(product_quantized(wide, dim // share))
        smaller = Regions(decoded, regions.image_rows, regions.boxes, regions.mass)
        formats[f"faiss PQ, {dim // share} bytes"] = (dim / share, full_index(smaller, images))
    best = mean_ap(plain, images, texts)
    lost = {
        format_name: best - mean_ap(index, images, texts)
        for format_name, (_, index) in formats.items()
    }
    table = Table(title=f"{name}: {len(images)} images, {CLUSTERS}, {len(texts)} class names")
    for column in ("vectors stored as", "bytes per image", "mAP@50", "lost"):
        table.add_column(column, justify="left" if column == "vectors stored as" else "right")
    for format_name, (size, _) in formats.items():
        each = f"{size * count / len(images):,.0f}"
        table.add_row(
            format_name, each, f"{best - lost[format_name]:.2f}", f"{lost[format_name]:.2f}"
        )
    Console(width=110).print(table)
    return lost


def embed(encoder: Encoder, images: ImageSet) -> DenseFeatures:
    parts = []
    for start in range(0, len(images), 32):
        rows = range(start, min(start + 32, len(images)))
        batch = [encoder.preprocess(open_image(images.path(row))) for row in rows]
        parts.append(encoder.encode_images(torch.stack(batch)))
    return DenseFeatures(
        torch.cat([part.patches for part in parts]), torch.cat([part.whole for part in parts])
    )


def test_photos(
    photo_images: ImageSet, photo_features: DenseFeatures, photo_encoder: Encoder
) -> None:
    regions = cluster(photo_features.patches, CLUSTERS)
    texts = photo_encoder.encode_texts(photo_images.class_names).numpy()
    lost = compare("photos", regions, photo_images, texts)
    assert abs(lost["int8"]) <= 0.3


def test_scenes(tmp_path: Path) -> None:
    write_scenes(tmp_path / "scenes", num_images=800, val_share=0.99)
    place = tmp_path / "scenes" / "val" / "images"
    images = load_images(place, annotations=tmp_path / "scenes" / "annotations" / "val.json")
    encoder = load_encoder("tiny")
    regions = cluster(embed(encoder, images).patches, CLUSTERS)
    texts = embed_prompts(encoder, images.class_names)
    lost = compare("scenes", regions, images, texts)
    assert abs(lost["int8"]) <= 0.3

"""Speed of a build relative to its encoder, and what an image costs outside the encoder.

Decoding, clustering and writing run in parallel with the encoder; on a GPU they must keep up.
"""

from __future__ import annotations

import hashlib
import io
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import PIL.Image
import pytest
import torch

from hardmine.datasets import open_image
from hardmine.encoders.base import DenseFeatures
from hardmine.encoders.open_clip import OpenClipEncoder
from hardmine.encoders.preprocess import WholeImage
from hardmine.image_files.decode import decode_image, decode_reduced
from hardmine.index import build_index
from hardmine.index.builder.decode import _Stack, decode_batches
from hardmine.index.builder.regions import regions_of_batch
from hardmine.index.storage.shard_files import write_shard
from hardmine.records import ImageSet

SIZE = 512
BATCH = 8
MIN_SHARE = 0.9  # of the encoder's own images per second
MAX_READY = 5.0  # CPU ms from a 640-pixel JPEG to pixels that a device can take
MAX_MAIN = 0.2  # CPU ms of them in the one thread that runs the encoder
CLUSTERS = "kmeans:10+whole"


@pytest.fixture(scope="module")
def encoder() -> OpenClipEncoder:
    """RN50 at 512 pixels, on this machine's best device and precision."""
    torch.manual_seed(0)
    model = open_clip.create_model("RN50")
    return OpenClipEncoder(
        model, open_clip.get_tokenizer("RN50"), image_size=SIZE, copy=False, name=None
    )


def photo_bytes(number: int, size: tuple[int, int]) -> bytes:
    """A JPEG of some width and height."""
    coarse = np.random.default_rng(number).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    file = io.BytesIO()
    image = PIL.Image.fromarray(coarse).resize(size, PIL.Image.Resampling.BICUBIC)
    image.save(file, "jpeg", quality=95)
    return file.getvalue()


def photo_sized(root: Path, count: int) -> ImageSet:
    """Images with the usual size of COCO's, in pixels and about in bytes."""
    root.mkdir()
    for number in range(count):
        (root / f"{number}.jpg").write_bytes(photo_bytes(number, (640, 480)))
    paths = tuple(f"{number}.jpg" for number in range(count))
    return ImageSet(root, np.arange(count), paths, np.full((count, 2), (480, 640), np.int32))


def timed(action: Callable[[], Any]) -> tuple[float, float]:
    """Wall seconds and CPU seconds of an action."""
    wall, cpu = time.perf_counter(), time.process_time()
    action()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - wall, time.process_time() - cpu


@pytest.mark.benchmark
def test_a_build_runs_at_the_encoders_rate(tmp_path: Path, encoder: OpenClipEncoder) -> None:
    count = 1024 if encoder.device.type == "cuda" else 4 * BATCH
    images = photo_sized(tmp_path / "images", count)
    pixels = [encoder.preprocess(open_image(images.path(row))) for row in range(BATCH)]
    batch = torch.stack(pixels)

    def alone() -> None:
        for _ in range(count // BATCH):
            encoder.encode_images(batch)

    def build(out: str) -> None:
        build_index(images, encoder, tmp_path / out, clusters=CLUSTERS, batch_size=BATCH)

    encoder.encode_images(batch)
    features = encoder.encode_images(batch)
    names = [""] * BATCH
    regions_of_batch(features, CLUSTERS, seed=0, names=names)
    decode = timed(lambda: [encoder.preprocess(open_image(images.path(r))) for r in range(BATCH)])
    cluster = timed(lambda: regions_of_batch(features, CLUSTERS, seed=0, names=names))
    # Alternate, so that other work on the machine slows both alike.
    rounds = [(timed(alone), timed(lambda turn=turn: build(f"out-{turn}"))) for turn in range(3)]
    shares = [one[0] / both[0] for one, both in rounds]
    cpu_ratio = np.median([both[1] / one[1] for one, both in rounds])
    best = max(shares)
    print(
        f"\nRN50 at {SIZE}, {encoder.device.type}, {encoder.precision}, "
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {count} images of 640x480"
    )
    print(f"  {'encoder alone':<28}{count / min(one[0] for one, _ in rounds):8.2f} images/s")
    print(f"  {f'build, {CLUSTERS}':<28}{count / min(both[0] for _, both in rounds):8.2f} images/s")
    print(f"  {'share of it, each round':<28}{'  '.join(f'{share:.3f}' for share in shares)}")
    print(f"  {'CPU time, build/alone':<28}{cpu_ratio:8.3f}")
    print(f"  {'decoding, one thread':<28}{decode[0] / BATCH * 1e3:8.2f} ms per image")
    print(f"  {'clustering':<28}{cluster[0] / BATCH * 1e3:8.2f} ms per image")
    print(f"  goal: {MIN_SHARE} of the encoder alone, in the best round; reached {best:.3f}")
    assert best >= MIN_SHARE


def cpu_ms(stages: dict[str, Callable[[], Any]], *, rounds: int = 10) -> dict[str, float]:
    """CPU ms that each stage takes in this thread, the least of some rounds in turn."""
    least = dict.fromkeys(stages, float("inf"))
    for _ in range(rounds):
        for name, stage in stages.items():
            start = time.thread_time()
            stage()
            least[name] = min(least[name], (time.thread_time() - start) * 1e3)
    return least


@pytest.mark.benchmark
def test_what_an_image_costs_outside_the_encoder(tmp_path: Path) -> None:
    images = photo_sized(tmp_path / "images", BATCH)
    exact = WholeImage((SIZE, SIZE))
    resize = replace(exact, fast=True)
    content = images.read(0)
    image = decode_image(content, "")
    pixels, stack = resize(image), _Stack(BATCH, pinned=torch.cuda.is_available())
    stack.put(0, pixels)
    generator = torch.Generator().manual_seed(0)
    patches = torch.nn.functional.normalize(
        torch.randn(BATCH, 16, 16, SIZE, generator=generator), dim=-1
    )
    features = DenseFeatures(patches, patches.mean((1, 2)))
    regions = regions_of_batch(features, CLUSTERS, seed=0, names=[""] * BATCH)
    arrays = {
        "offsets": np.cumsum([0, *np.bincount(regions.image_rows.numpy())]),
        "boxes": regions.boxes.numpy().astype(np.float16),
        "mass": regions.mass.numpy(),
    }

    def write() -> None:
        vectors = [regions.vectors.numpy().astype(np.float16)]
        (tmp_path / "shards").mkdir(exist_ok=True)
        write_shard(tmp_path, 0, vectors, arrays, dim=SIZE, dtype="float16", scratch=tmp_path)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    one = cpu_ms(
        {
            "read the file": lambda: images.read(0),
            "hash": lambda: hashlib.sha256(content).digest(),
            "decode": lambda: decode_reduced(content, "", (SIZE, SIZE)),
            "resize": lambda: resize(image),
            "stack": lambda: stack.put(1, pixels),
        }
    )
    large = photo_bytes(0, (4000, 3000))
    reduced, _ = decode_reduced(large, "", (SIZE, SIZE))
    whole = decode_image(large, "")
    others = cpu_ms(
        {
            "resize by Pillow, as indexes of old": lambda: exact(image),
            "4000x3000: decode and resize": lambda: resize(
                decode_reduced(large, "", (SIZE, SIZE))[0]
            ),
            "the same by Pillow, in full": lambda: exact(decode_image(large, "")),
        },
        rounds=3,
    )
    difference = (resize(reduced).int() - exact(whole).int()).abs()
    of_batch = cpu_ms(
        {
            "normalise, where the encoder is": lambda: resize.normalise(stack.pixels),
            f"cluster, {CLUSTERS}": lambda: regions_of_batch(
                features, CLUSTERS, seed=0, names=[""] * BATCH
            ),
            "write": write,
        }
    )
    torch.set_num_threads(threads)
    batches = [(None, list(range(BATCH)))] * 8
    start = time.thread_time()
    for _ in decode_batches(images, batches, resize, workers=2):
        pass
    main = (time.thread_time() - start) * 1e3 / (len(batches) * BATCH)
    ready = sum(one.values()) + main
    print(f"\nCPU ms of an image of 640x480, JPEG of {len(content) / 1024:.0f} KiB, at {SIZE}")
    for name, ms in one.items():
        print(f"  {name:<36}{ms:8.3f}")
    print(f"  {'hand over, in the main thread':<36}{main:8.3f}   goal: {MAX_MAIN}")
    print(f"  {'ready for the device':<36}{ready:8.3f}   goal: {MAX_READY}")
    for name, ms in of_batch.items():
        print(f"  {name:<36}{ms / BATCH:8.3f}")
    print(f"  {1e3 / ready:.0f} images a second a core until ready for the device")
    for name, ms in others.items():
        print(f"  {name:<36}{ms:8.3f}")
    print(f"  largest difference of these two: {int(difference.max())} of 255")
    assert main <= MAX_MAIN
    # Ratios within this run hold on a busy machine too, on which milliseconds do not.
    by_pillow, large_fast, large_exact = others.values()
    assert by_pillow >= 2 * one["resize"]
    assert large_exact >= 2 * large_fast

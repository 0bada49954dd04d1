"""Time of dense vectors compared with open_clip's ``encode_image``, in one run."""

from __future__ import annotations

import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import open_clip
import pytest
import torch
from torch import nn

from hardmine.encoders.fingerprint import model_fingerprint
from hardmine.encoders.open_clip import OpenClipEncoder

ROUNDS = 7


def interleaved(runs: dict[str, Callable[[], Any]]) -> dict[str, list[float]]:
    """Seconds of each run in each round; runs alternate, so that other load affects all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(ROUNDS + 1):
        names = list(runs) if turn % 2 else list(runs)[::-1]
        for name in names:
            start = time.perf_counter()
            runs[name]()
            if turn:  # the first round warms up
                seconds[name].append(time.perf_counter() - start)
    return seconds


def ratio(seconds: dict[str, list[float]], name: str, peer: str) -> float:
    """Median over rounds of the ratio within a round."""
    pairs = zip(seconds[name], seconds[peer], strict=True)
    return statistics.median(own / other for own, other in pairs)


@pytest.mark.benchmark
@pytest.mark.parametrize(
    ("name", "size", "batch"),
    [("RN50", 224, 4), ("ViT-B-16", 224, 4), ("convnext_base", 224, 2)],
)
def test_dense_and_whole_cost_no_more_than_encode_image(name: str, size: int, batch: int) -> None:
    torch.manual_seed(0)
    model: Any = open_clip.create_model(name, force_image_size=size).eval()
    encoder = OpenClipEncoder(model, open_clip.get_tokenizer(name))
    images = torch.randn(batch, 3, size, size)

    # The same weights with folded batch norms but the default memory layout, to separate these
    # gains from the cost of the dense path.
    plain = copy.deepcopy(encoder.model).to(memory_format=torch.contiguous_format)

    def encode(of: nn.Module) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return of.encode_image(images)  # type: ignore[operator]

        return run

    channels_last = images.contiguous(memory_format=torch.channels_last)

    def best_peer() -> Any:
        with torch.inference_mode():
            return encoder.model.encode_image(channels_last)  # type: ignore[operator]

    seconds = interleaved(
        {
            "encode_image": encode(model),
            "the same, batch norms folded": encode(plain),
            "the same, folded and channels last": best_peer,
            "patches + whole": lambda: encoder.encode_images(images),
        }
    )
    print(f"\n{name} at {size}, batch {batch}, {torch.get_num_threads()} threads")
    for run, times in seconds.items():
        median = statistics.median(times) / batch * 1000
        print(
            f"  {run:36s} {median:8.1f} ms an image  {ratio(seconds, run, 'encode_image'):5.2f} x"
        )
    assert ratio(seconds, "patches + whole", "encode_image") <= 1.05


@pytest.mark.benchmark
def test_dense_modes_of_a_transformer() -> None:
    torch.manual_seed(0)
    model: Any = open_clip.create_model("ViT-B-16").eval()
    tokenizer = open_clip.get_tokenizer("ViT-B-16")
    images = torch.randn(2, 3, 224, 224)
    runs: dict[str, Callable[[], Any]] = {}
    for dense in ("value", "clearclip", "naclip", "sclip"):
        encoder = OpenClipEncoder(model, tokenizer, dense=dense)
        runs[dense] = lambda encoder=encoder: encoder.encode_images(images)  # type: ignore[misc]

    def encode_image() -> Any:
        with torch.inference_mode():
            return model.encode_image(images)

    seconds = interleaved({"encode_image": encode_image, **runs})
    print("\nViT-B-16 at 224, batch 2")
    for dense in runs:
        print(f"  {dense:12s} {ratio(seconds, dense, 'encode_image'):5.2f} x encode_image")
    assert ratio(seconds, "clearclip", "encode_image") <= 1.2


@pytest.mark.benchmark
def test_fingerprint_of_a_large_model() -> None:
    """RN50x64 has 623 million weights: 2.5 GB to read."""
    layers = [nn.Linear(4096, 4096, bias=False) for _ in range(37)]
    model = nn.Sequential(*layers)
    start = time.perf_counter()
    model_fingerprint(model)
    seconds = time.perf_counter() - start
    size = sum(parameter.nbytes for parameter in model.parameters()) / 1e9
    print(f"\nfingerprint of {size:.1f} GB: {seconds:.2f} s, {size / seconds:.1f} GB/s")
    assert seconds < 10

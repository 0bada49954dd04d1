"""The fingerprint changes with everything that changes a vector, and with nothing else."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from open_clip.model import CLIP
from random_models import TEXT, VIT, random_model, tokenizer

from hardmine.encoders.fingerprint import model_fingerprint
from hardmine.encoders.open_clip import OpenClipEncoder


def fingerprint(model: Any, **options: Any) -> str:
    return OpenClipEncoder(model, tokenizer(), **options).fingerprint


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model("vit")


@pytest.mark.parametrize(
    "options",
    [
        {"image_size": 96},
        {"dense": "qq"},
        {"precision": "bf16"},
        {"image_size": 96, "whole": "native"},
    ],
    ids=str,
)
def test_options_change_it(model: Any, options: dict[str, Any]) -> None:
    assert fingerprint(model, **options) != fingerprint(model)


def one_weight(model: Any) -> None:
    model.visual.proj.data[3, 3] += 1e-6


def one_text_weight(model: Any) -> None:
    model.token_embedding.weight.data[7, 7] += 1e-6


def heads(model: Any) -> None:
    model.visual.transformer.resblocks[1].attn.num_heads = 2


def norm_epsilon(model: Any) -> None:
    model.visual.ln_post.eps = 1e-3


def pooling(model: Any) -> None:
    model.visual.pool_type = "avg"


def activation(model: Any) -> None:
    model.visual.transformer.resblocks[0].mlp.gelu = torch.nn.ReLU()


def colours(model: Any) -> None:
    model.visual.image_mean = (0.5, 0.5, 0.5)


def interpolation(model: Any) -> None:
    model.visual.preprocess_cfg = {"interpolation": "bilinear"}


@pytest.mark.parametrize(
    "change",
    [one_weight, one_text_weight, heads, norm_epsilon, pooling, activation, colours, interpolation],
)
def test_any_change_of_the_model_changes_it(model: Any, change: Callable[[Any], None]) -> None:
    other = copy.deepcopy(model)
    change(other)
    assert fingerprint(other) != fingerprint(model)


def test_quick_gelu_changes_it() -> None:
    """The same checkpoint fits RN50 and RN50-quickgelu but gives different vectors."""
    torch.manual_seed(0)
    plain = CLIP(48, VIT, TEXT)
    quick = CLIP(48, VIT, TEXT, quick_gelu=True)
    quick.load_state_dict(plain.state_dict())
    assert model_fingerprint(plain) != model_fingerprint(quick)


def test_changes_without_effect_on_vectors_keep_it(model: Any) -> None:
    same = fingerprint(copy.deepcopy(model))
    assert same == fingerprint(model)
    assert same == fingerprint(copy.deepcopy(model), copy=False, device="cpu", dense="maskclip")
    resnet: Any = random_model("resnet")
    first = fingerprint(resnet)
    resnet.visual.bn1.num_batches_tracked += 5
    assert fingerprint(resnet.train()) == first


def test_threads_give_the_same_fingerprint(model: Any) -> None:
    prints: list[str] = []
    threads = [
        threading.Thread(target=lambda: prints.append(model_fingerprint(model))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(prints)) == 1
    assert len(prints) == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_type(model: Any, dtype: torch.dtype) -> None:
    assert len(model_fingerprint(copy.deepcopy(model).to(dtype))) == 16

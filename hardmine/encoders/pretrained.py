"""Loads open_clip models by name, with weights from the hub's cache, the network or a file."""

from __future__ import annotations

import difflib
import os
import pickle
import textwrap
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME
from open_clip.pretrained import get_pretrained_cfg
from safetensors import SafetensorError
from torch import nn

from hardmine.encoders.hub import fetch, fetch_folder
from hardmine.errors import InputError

_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin")
# Raised by open_clip, torch and safetensors on files that are broken, empty or of another type.
_UNREADABLE = (
    RuntimeError,
    KeyError,
    AttributeError,
    EOFError,
    OSError,
    StopIteration,
    SafetensorError,
)
_PREPROCESSING = ("mean", "std", "interpolation")

Tokenizer = Callable[[list[str]], torch.Tensor]


def load_pretrained(name: str) -> tuple[nn.Module, Tokenizer, str]:
    """Load a model and its tokenizer.

    Args:
        name: "ARCHITECTURE/TAG", "ARCHITECTURE/FILE", "hf-hub:ORG/MODEL" or "local-dir:FOLDER".

    Returns:
        The model in float32 on the CPU, the tokenizer, and the name with any path made absolute.

    Raises:
        InputError: If the name is unknown or the file is not a checkpoint of the architecture.
        WeightsUnavailable: If a file must be downloaded and cannot be.
    """
    if name.startswith("local-dir:"):
        folder = Path(name.removeprefix("local-dir:")).expanduser().resolve()
        return *_from_folder(folder), f"local-dir:{folder}"
    if name.startswith("hf-hub:"):
        files = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
        folder = fetch_folder(name.removeprefix("hf-hub:"), files, "open_clip_config.json", name)
        return *_from_folder(folder), name
    architecture, _, weights = name.partition("/")
    if architecture not in open_clip.list_models():
        raise InputError(f"unknown encoder {name!r}{_nearest(name, _known_names())}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    config = get_pretrained_cfg(architecture, weights)
    if config:
        checkpoint, full_name = _hub_checkpoint(architecture, config, name), name
    elif weights.endswith(_SUFFIXES):
        checkpoint = Path(weights).expanduser().resolve()
        full_name, config = (
            f"{architecture}/{checkpoint}",
            _shared_preprocessing(architecture, tags),
        )
        if not checkpoint.is_file():
            raise InputError(f"encoder {name!r}: no file {checkpoint}")
    else:
        raise InputError(
            f"encoder {name!r}: {architecture} needs the name of its weights"
            f"{_nearest(name, [f'{architecture}/{tag}' for tag in tags])}, or a checkpoint file "
            f"({', '.join(_SUFFIXES)}), as in '{architecture}/FILE'"
        )
    text = open_clip.get_model_config(architecture)["text_cfg"]
    for key, file in (
        ("hf_model_name", "config.json"),
        ("hf_tokenizer_name", "tokenizer_config.json"),
    ):
        if text.get(key):
            fetch(text[key], [file], name)
    model = _create(
        architecture,
        pretrained=str(checkpoint),
        force_quick_gelu=bool(config.get("quick_gelu")),
        force_preprocess_cfg={key: config[key] for key in _PREPROCESSING if key in config},
    )
    return model, open_clip.get_tokenizer(architecture), full_name


def _from_folder(folder: Path) -> tuple[nn.Module, Tokenizer]:
    if not (folder / "open_clip_config.json").is_file():
        raise InputError(f"{folder} must contain open_clip_config.json and a checkpoint")
    name = f"local-dir:{folder}"
    return _create(name, pretrained=None), open_clip.get_tokenizer(name)


def _hub_checkpoint(architecture: str, config: dict[str, Any], name: str) -> Path:
    """Find the checkpoint of a tag; prefers safetensors to a pickle."""
    repository, file = os.path.split(config["hf_hub"])
    if file:
        files = [file.rsplit(".", 1)[0] + ".safetensors", file]
    else:
        files = [HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME]
    if config.get("quick_gelu") and f"{architecture}-quickgelu" in open_clip.list_models():
        architecture = f"{architecture}-quickgelu"
    manual = f"load it as '{architecture}/PATH/{files[0]}'"
    return fetch(repository, list(dict.fromkeys(files)), name, manual)


def _shared_preprocessing(architecture: str, tags: Sequence[str]) -> dict[str, Any]:
    """Mean, standard deviation and interpolation, if all known weights of a model agree on them.

    A checkpoint file does not record them, and they differ between models, e.g. CLIP and SigLIP.
    """
    known = [get_pretrained_cfg(architecture, tag) for tag in tags]
    settings = [{key: config[key] for key in _PREPROCESSING if key in config} for config in known]
    return settings[0] if settings and all(each == settings[0] for each in settings) else {}


def _create(model_name: str, *, pretrained: str | None, **options: Any) -> nn.Module:
    """Make a model; refuses a checkpoint with anything but tensors, without unpickling it."""
    source = pretrained or model_name
    try:
        model: nn.Module = open_clip.create_model(
            model_name, pretrained, require_pretrained=True, weights_only=True, **options
        )
    except pickle.UnpicklingError:
        raise InputError(
            f"{source} must contain only tensors; unpickling anything else could run its code. "
            "If you trust it, save it again: "
            "safetensors.torch.save_file(model.state_dict(), 'weights.safetensors')"
        ) from None
    except _UNREADABLE as error:
        if "TorchScript" in str(error) or _is_torchscript(source):
            raise InputError(
                f"{source} is a TorchScript program, not a file of tensors (like OpenAI's own "
                "downloads); use the weights by name, e.g. 'RN50x64/openai', or save its state dict"
            ) from None
        lines = str(error).strip().splitlines()[:4] or [type(error).__name__]
        reason = " ".join(textwrap.shorten(line, 200, placeholder=" ...") for line in lines)
        raise InputError(
            f"{source} does not load as a checkpoint of {model_name}: {reason}"
        ) from error
    return model


def _is_torchscript(file: str) -> bool:
    """Whether this is a TorchScript archive, which torch before 2.6 loads without an error."""
    if not zipfile.is_zipfile(file):
        return False
    with zipfile.ZipFile(file) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _known_names() -> list[str]:
    pairs = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
    return ["tiny", *open_clip.list_models(), *pairs]


def _nearest(name: str, known: Sequence[str]) -> str:
    """End of an error message: known names similar to ``name``."""
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
    return f"; similar known names: {', '.join(close)}" if close else ""

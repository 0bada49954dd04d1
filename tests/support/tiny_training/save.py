"""Writes the weights and the checksums that ``load_encoder("tiny")`` reads."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from safetensors.torch import save_file
from torch import nn


def save_weights(model: nn.Module, path: Path) -> None:
    """Save weights as float16 safetensors."""
    tensors = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in model.state_dict().items()
    }
    save_file(tensors, path)


def write_checksums(folder: Path) -> None:
    """Write the SHA-256 of each file that loading reads."""
    names = ("config.json", "vocabulary.txt.gz", "weights.safetensors")
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "checksums.json").write_text(json.dumps(sums, indent=2) + "\n")

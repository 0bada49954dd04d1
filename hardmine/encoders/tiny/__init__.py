"""The encoder "tiny": a small CLIP trained on generated scenes, shipped with hardmine.

It is open_clip's model class with a small config and runs through ``OpenClipEncoder`` like any
other. It knows generated scenes, not photos: see MODEL_CARD.md in this folder.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import open_clip
from safetensors.torch import load_file

from hardmine.errors import WeightsUnavailable

_HERE = Path(__file__).parent


def make_model(
    config_path: Path, vocabulary_path: Path
) -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """Build the model with random weights, and its tokenizer."""
    config = json.loads(config_path.read_text())
    tokenizer = open_clip.SimpleTokenizer(
        str(vocabulary_path), context_length=config["text_cfg"]["context_length"]
    )
    return open_clip.CLIP(**config), tokenizer


def load_model() -> tuple[open_clip.CLIP, open_clip.SimpleTokenizer]:
    """Load the trained model (float32, in eval mode) and its tokenizer.

    Raises:
        WeightsUnavailable: If a file is missing or differs from the one that was shipped.
    """
    model, tokenizer = make_model(_checked_path("config.json"), _checked_path("vocabulary.txt.gz"))
    model.load_state_dict(load_file(_checked_path("weights.safetensors")))
    return model.eval(), tokenizer


def _checked_path(name: str) -> Path:
    path = _HERE / name
    expected = json.loads((_HERE / "checksums.json").read_text())[name]
    if not path.is_file():
        raise WeightsUnavailable(f"{path} is missing; install hardmine again")
    got = hashlib.sha256(path.read_bytes()).hexdigest()
    if got != expected:
        raise WeightsUnavailable(
            f"{path} is not the file that was shipped (sha256 expected {expected[:12]}..., got "
            f"{got[:12]}...); install hardmine again"
        )
    return path

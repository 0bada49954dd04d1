"""Dense vectors from timm towers: ConvNeXt, Swin, FastViT, SigLIP, EVA, ViTamin and similar."""

from __future__ import annotations

from typing import Any

import torch
from open_clip.timm_model import TimmModel
from torch import nn

from hardmine.errors import InputError


class PooledTower(nn.Module):
    """Computes unnormalised patch and whole-image vectors of a timm tower in one pass.

    A patch's vector is the output of the tower's pooling head for that patch alone. The average of
    one position is that position, and the attention of a latent query over one token is that
    token's value. So ConvNeXt's norm and projection, and SigLIP's pooling head with its
    feed-forward part, are applied at each position.

    A transformer with a class token pools in its last block. There each patch attends only to
    itself, which is the value path; the final norm and head follow.

    Args:
        visual: The tower, frozen and in eval mode.

    Raises:
        InputError: If the type of the tower's head or last block is not supported.
    """

    channels_last = True

    def __init__(self, visual: TimmModel) -> None:
        super().__init__()
        trunk = visual.trunk
        name = type(trunk).__name__
        if hasattr(visual.head, "pool"):
            raise InputError(f"dense vectors of {name} with a 2D attention pool are not supported")
        self.visual = visual
        self.any_size = not hasattr(trunk, "set_input_size")
        self.is_transformer = hasattr(trunk, "blocks") and hasattr(trunk, "patch_embed")
        attention_pool = getattr(trunk, "attn_pool", None)
        self.reads_class_token = (
            self.is_transformer
            and attention_pool is None
            and getattr(trunk, "global_pool", "") == "token"
        )
        if self.reads_class_token and type(trunk.blocks[-1]).__name__ not in ("Block", "EvaBlock"):
            block = type(trunk.blocks[-1]).__name__
            raise InputError(f"dense vectors of {name} with {block} blocks are not supported")
        if getattr(attention_pool, "pos_embed", None) is not None:
            raise InputError(
                f"dense vectors of {name} with positions in its pool are not supported"
            )

    @property
    def stride(self) -> int:
        """Side of a patch in pixels."""
        return int(self.visual.trunk.feature_info[-1]["reduction"])

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed (B, 3, height, width) into patches (B, H, W, D) and whole (B, D)."""
        trunk = self.visual.trunk
        if self.reads_class_token:
            features, (features_in,) = trunk.forward_intermediates(
                images, indices=[len(trunk.blocks) - 2]
            )
            grid = features_in.shape[2:]
            single = _single_tokens(features_in.flatten(2).transpose(1, 2))
            patches = self._head(trunk.norm(_attend_to_itself(trunk.blocks[-1], single)))
        else:
            features = trunk.forward_features(images)
            if self.is_transformer:
                grid = trunk.patch_embed.dynamic_feat_size(tuple(images.shape[2:]))
                patches = self._head(_single_tokens(features[:, trunk.num_prefix_tokens :], trunk))
            else:
                channels_last = getattr(trunk, "output_fmt", "NCHW") == "NHWC"
                positions = features if channels_last else features.permute(0, 2, 3, 1)
                grid = positions.shape[1:3]
                single = positions.flatten(0, 2)[:, None, None]
                patches = self._head(single if channels_last else single.permute(0, 3, 1, 2))
        return patches.reshape(len(images), *grid, -1), self._head(features)

    def _head(self, features: torch.Tensor) -> torch.Tensor:
        vectors: torch.Tensor = self.visual.head(self.visual.trunk.forward_head(features))
        return vectors


def _single_tokens(tokens: torch.Tensor, trunk: Any = None) -> torch.Tensor:
    """(B, L, width) to B * L sequences of one token, repeated for the prefix that a head skips."""
    length = 1 if trunk is None else 1 + trunk.num_prefix_tokens
    return tokens.flatten(0, 1)[:, None].expand(-1, length, -1)


def _attend_to_itself(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    added: torch.Tensor = block.attn(block.norm1(tokens))
    if hasattr(block, "ls1"):
        added = block.ls1(added)
    elif block.gamma_1 is not None:
        added = block.gamma_1 * added
    return added

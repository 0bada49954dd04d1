"""Dense vectors from open_clip's vision transformers."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from open_clip.transformer import VisionTransformer
from torch import nn

from hardmine.encoders.dense import DenseMode
from hardmine.encoders.positions import resize_positions
from hardmine.errors import InputError


class ViTTower(nn.Module):
    """Computes unnormalised patch and whole-image vectors of a VisionTransformer in one pass.

    All blocks except the last are unchanged. In the last block the whole-image vector needs only
    the class token's query; the time that open_clip spends on the patches' queries and
    feed-forward is used for the dense path instead. ``mode`` determines the patches' output of the
    block; the model's final norm and projection follow.

    If the model ends in an attentional pooler (CoCa), all blocks are unchanged, and a patch's
    vector is the pooler's output for that patch alone.

    Args:
        visual: The tower, frozen and in eval mode.
        mode: How the last attention treats patches.

    Raises:
        InputError: If the tower has no pooled embedding, or does not support ``mode``.
    """

    any_size = True
    channels_last = False

    def __init__(self, visual: VisionTransformer, mode: DenseMode) -> None:
        super().__init__()
        self.visual = visual
        self.mode = mode
        self.stride = visual.patch_size[0]
        self.trained_grid = (visual.grid_size[0], visual.grid_size[1])
        if visual.attn_pool is not None:
            if getattr(visual, "attn_pool_contrastive", None) is not None:
                raise InputError("a vision tower with two attentional poolers is not supported")
            if not mode.plain:
                raise InputError(
                    f"dense mode {str(mode)!r} changes the last block, but this tower ends in an "
                    "attentional pooler; use dense='value'"
                )
        elif visual.pool_type not in ("tok", "avg"):
            raise InputError(
                "the vision tower must pool its tokens (pool_type 'tok' or 'avg'), "
                f"got pool_type {visual.pool_type!r}"
            )
        if getattr(visual.transformer.resblocks[-1].attn, "logit_scale", None) is not None:
            raise InputError(
                "scaled cosine attention is not supported (open_clip cannot run it either)"
            )

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed (B, 3, height, width) into patches (B, H, W, D) and whole (B, D)."""
        visual = self.visual
        tokens, grid = self._embed(images)
        blocks = visual.transformer.resblocks
        for block in blocks[:-1]:
            tokens = block(tokens)
        if visual.attn_pool is None:
            patches, whole = self._last_block(blocks[-1], tokens, grid)
        else:
            tokens = blocks[-1](tokens)
            whole, _ = visual._pool(tokens)
            patches = visual.ln_post(pooler_values(visual.attn_pool, tokens[:, 1:]))
        if visual.proj is not None:
            patches, whole = patches @ visual.proj, whole @ visual.proj
        return patches.reshape(len(images), *grid, -1), whole

    def _embed(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int]]:
        """Turn images into tokens (B, 1 + H * W, width), class token first; also returns (H, W)."""
        visual = self.visual
        features = visual.conv1(images)
        grid = (features.shape[2], features.shape[3])
        first = visual.class_embedding.to(features.dtype).expand(len(features), 1, -1)
        tokens = torch.cat([first, features.flatten(2).transpose(1, 2)], 1)
        tokens = tokens + resize_positions(visual.positional_embedding, self.trained_grid, grid)
        return visual.ln_pre(tokens), grid

    def _last_block(
        self, block: Any, tokens: torch.Tensor, grid: tuple[int, int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Patches (B, H * W, width) and whole (B, width), after the final norm, not projected."""
        visual, normed = self.visual, block.ln_1(tokens)
        keys, values = project(block.attn, normed, "k"), project(block.attn, normed, "v")
        queried = tokens[:, :1] if visual.pool_type == "tok" else tokens
        query = project(block.attn, normed[:, : queried.shape[1]], "q")
        context = F.scaled_dot_product_attention(query, keys, values)
        queried = feed_forward(block, queried + attention_output(block, context))

        patches = attention_output(block, self._attend(block.attn, normed, keys, values, grid))
        if self.mode.residual:
            patches = tokens[:, 1:] + patches
        if self.mode.mlp:
            patches = feed_forward(block, patches)
        return visual.ln_post(patches), self._pool(queried)

    def _attend(
        self,
        attention: Any,
        normed: torch.Tensor,
        keys: torch.Tensor,
        values: torch.Tensor,
        grid: tuple[int, int],
    ) -> torch.Tensor:
        """Attention of each patch according to ``mode``: (B, heads, H * W, width / heads)."""
        if not self.mode.attention:
            return values[:, :, 1:]
        projections = {"k": keys, "v": values}
        if any("q" in pair for pair in self.mode.attention):
            projections["q"] = project(attention, normed, "q")
        window = gaussian_window(grid, self.mode.window).to(normed) if self.mode.window else None
        contexts = [
            F.scaled_dot_product_attention(
                projections[a][:, :, 1:], projections[b], values, attn_mask=window
            )
            for a, b in map(tuple, self.mode.attention)
        ]
        return torch.stack(contexts).sum(0) if len(contexts) > 1 else contexts[0]

    def _pool(self, tokens: torch.Tensor) -> torch.Tensor:
        visual = self.visual
        pooled: torch.Tensor
        if visual.pool_type == "tok":
            pooled = visual.ln_post(tokens[:, 0])
        elif visual.final_ln_after_pool:
            pooled = visual.ln_post(tokens[:, 1:].mean(1))
        else:
            pooled = visual.ln_post(tokens)[:, 1:].mean(1)
        return pooled


def project(attention: Any, normed: torch.Tensor, part: str) -> torch.Tensor:
    """Queries ("q"), keys ("k") or values ("v") by head: (B, heads, L, width / heads)."""
    width = attention.in_proj_weight.shape[1]
    row = "qkv".index(part) * width
    bias = attention.in_proj_bias
    tokens = F.linear(
        normed,
        attention.in_proj_weight[row : row + width],
        None if bias is None else bias[row : row + width],
    )
    heads = tokens.reshape(*tokens.shape[:2], attention.num_heads, -1).transpose(1, 2)
    norm = getattr(attention, f"ln_{part}", None)  # only open_clip's custom attention has one
    return heads if norm is None else norm(heads)


def attention_output(block: Any, context: torch.Tensor) -> torch.Tensor:
    """Turn (B, heads, L, width / heads) into the attention's residual update, (B, L, width)."""
    attention = block.attn
    if getattr(attention, "head_scale", None) is not None:
        context = context * attention.head_scale
    joined = context.transpose(1, 2).flatten(2)
    if hasattr(attention, "ln_inner"):
        joined = attention.ln_inner(joined)
    added: torch.Tensor = attention.out_proj(joined)
    if hasattr(block, "ln_attn"):
        added = block.ln_attn(added)
    scaled: torch.Tensor = block.ls_1(added)
    return scaled


def feed_forward(block: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Apply the feed-forward half of a block, with its skip connection."""
    added: torch.Tensor = block.ls_2(block.mlp(block.ln_2(tokens)))
    return tokens + added


def pooler_values(pooler: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Output of an attentional pooler for each token alone: (B, L, width) to (B, L, D).

    With a single key its attention weight is 1, so the output is that key's value for any query.
    """
    attention = pooler.attn
    weight = attention.v_proj_weight
    if weight is None:
        weight = attention.in_proj_weight[2 * attention.embed_dim :]
    bias = attention.in_proj_bias[2 * attention.embed_dim :]
    values: torch.Tensor = attention.out_proj(F.linear(pooler.ln_k(tokens), weight, bias))
    return values


def gaussian_window(grid: tuple[int, int], deviation: float) -> torch.Tensor:
    """Gaussian bias for the attention logits of patches: (H * W, 1 + H * W), in [0, 1].

    1 for the patch itself, decreasing with distance; 0 for the class token (column 0).
    """
    rows, columns = torch.meshgrid(torch.arange(grid[0]), torch.arange(grid[1]), indexing="ij")
    positions = torch.stack([rows.flatten(), columns.flatten()], 1).float()
    bias = torch.exp(-torch.cdist(positions, positions).square() / (2 * deviation**2))
    return F.pad(bias, (1, 0))

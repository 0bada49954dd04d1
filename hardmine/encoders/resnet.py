"""Dense vectors from CLIP's ResNets, which end in attention pooling."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from open_clip.modified_resnet import Bottleneck, ModifiedResNet
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from hardmine.encoders.positions import resize_positions


class ResNetTower(nn.Module):
    """Computes unnormalised patch and whole-image vectors of a ModifiedResNet in one pass.

    The attention pool is a weighted mean of the values of all positions, with the mean feature as
    the query. Without this mean, the value of one position, after the output projection, is the
    position's own vector in the joint space. The pool is computed for its one query only;
    open_clip computes it for every position and drops the rest.

    Args:
        visual: The tower.
        positions: Whether patch vectors include the pool's positional embeddings. With them the
            pool is a weighted mean of the patches; MaskCLIP leaves them out.
    """

    stride = 32
    any_size = True
    channels_last = True

    def __init__(self, visual: ModifiedResNet, *, positions: bool = True) -> None:
        super().__init__()
        self.visual = visual
        self.positions = positions
        side = round((visual.attnpool.positional_embedding.shape[0] - 1) ** 0.5)
        self.trained_grid = (side, side)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Embed (B, 3, height, width) into patches (B, H, W, D) and whole (B, D)."""
        visual, pool = self.visual, self.visual.attnpool
        features = visual.stem(images)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            features = layer(features)
        batch, _, height, width = features.shape
        positions = resize_positions(pool.positional_embedding, self.trained_grid, (height, width))
        tokens = features.flatten(2).transpose(1, 2)  # (B, H * W, C)
        tokens = torch.cat([tokens.mean(1, keepdim=True), tokens], 1) + positions

        query, keys, values = pool.q_proj(tokens[:, :1]), pool.k_proj(tokens), pool.v_proj(tokens)
        by_head = [
            part.reshape(batch, -1, pool.num_heads, pool.v_proj.out_features // pool.num_heads)
            for part in (query, keys, values)
        ]
        pooled = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in by_head))
        pooled = pooled.transpose(1, 2).reshape(batch, 1, -1)
        of_patches = values[:, 1:]
        if not self.positions:  # the projection is linear
            of_patches = of_patches - F.linear(positions[1:], pool.v_proj.weight)
        vectors: torch.Tensor = pool.c_proj(torch.cat([pooled, of_patches], 1))
        return vectors[:, 1:].reshape(batch, height, width, -1), vectors[:, 0]


def fold_batch_norms(visual: ModifiedResNet) -> None:
    """Fold every batch norm into the convolution before it, in place.

    The result is the same up to float32 rounding, and faster. In half precision it is also more
    exact: statistics rounded to bfloat16 would be off by up to 0.4 %.
    """
    pairs = [(visual, "conv1", "bn1"), (visual, "conv2", "bn2"), (visual, "conv3", "bn3")]
    for module in visual.modules():
        if isinstance(module, Bottleneck):
            pairs += [(module, f"conv{i}", f"bn{i}") for i in (1, 2, 3)]
            if module.downsample is not None:
                pairs.append((module.downsample, "0", "1"))
    for owner, conv, norm in pairs:
        if isinstance(getattr(owner, norm), nn.BatchNorm2d):
            setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
            setattr(owner, norm, nn.Identity())

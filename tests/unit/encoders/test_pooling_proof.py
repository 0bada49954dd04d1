"""Patch vectors, pooled with the model's own attention weights, give its whole-image embedding.

The attention weights are computed here from the input of the model's last layer, which a hook
records while open_clip's code runs. Each head has its own weights, so heads are tested one at a
time: a copy of the model whose output projection sees one head only gives that head's patches.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_models import random_model
from torch import nn

from hardmine.encoders.dense import DenseMode
from hardmine.encoders.open_clip import make_tower

TOLERANCE = 1e-4


def one_head_each(
    model: Any, find: Callable[[Any], nn.Linear], heads: int
) -> Iterator[tuple[int, Any]]:
    """Copies of a model whose output projection sees one head only."""
    width = find(model).in_features // heads
    for head in range(heads):
        alone = copy.deepcopy(model)
        mask = torch.zeros(find(alone).in_features)
        mask[head * width : (head + 1) * width] = 1
        find(alone).weight.data *= mask
        find(alone).bias.data.zero_()
        yield head, alone


def input_of(module: nn.Module, run: Callable[[], Any]) -> torch.Tensor:
    caught: list[torch.Tensor] = []
    hook = module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    run()
    hook.remove()
    return caught[-1]


def attention_of_first(query: torch.Tensor, key: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, heads, L): attention weights of the first token."""
    query, key = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query[:, :1], key))
    return (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)[:, :, 0]


def images(size: tuple[int, int], count: int = 2) -> torch.Tensor:
    return torch.randn((count, 3, *size), generator=torch.Generator().manual_seed(3))


@torch.no_grad()
def test_resnet() -> None:
    model = random_model("resnet", image_size=96)
    pool, batch = model.visual.attnpool, images((96, 96))
    features = input_of(pool, lambda: model.encode_image(batch)).flatten(2).mT
    tokens = torch.cat([features.mean(1, keepdim=True), features], 1) + pool.positional_embedding
    weights = attention_of_first(pool.q_proj(tokens), pool.k_proj(tokens), pool.num_heads)
    pooled = pool.c_proj.bias.clone()
    for head, alone in one_head_each(model, lambda m: m.visual.attnpool.c_proj, pool.num_heads):
        # The pool also attends to the mean token, which is not a patch.
        mean = alone.visual.attnpool.c_proj(pool.v_proj(tokens[:, :1]))
        patches, _ = make_tower(alone.visual, DenseMode())(batch)
        values = torch.cat([mean, patches.flatten(1, 2)], 1)
        pooled = pooled + torch.einsum("bl,bld->bd", weights[:, head], values)
    own = model.encode_image(batch)
    torch.testing.assert_close(pooled, own, atol=TOLERANCE, rtol=TOLERANCE)
    assert own.std() > 100 * TOLERANCE


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "vit-one-head", "vit-layer-scale", "vit-no-ln-pre"])
@pytest.mark.parametrize("size", [(64, 64), (48, 80)], ids=["square", "wide"])
def test_vit(family: str, size: tuple[int, int]) -> None:
    model = random_model(family, image_size=size)
    visual, batch = model.visual, images(size)
    block = visual.transformer.resblocks[-1]
    tokens = input_of(block, lambda: model.encode_image(batch))
    normed, heads = block.ln_1(tokens), block.attn.num_heads
    # torch's attention module returns its weights for each head.
    _, weights = block.attn(normed, normed, normed, average_attn_weights=False)
    pooled = block.ls_1(block.attn.out_proj.bias.expand(len(batch), -1))

    def bare(copied: Any) -> Any:
        """Patches after the value path, in the block's width."""
        copied.visual.ln_post, copied.visual.proj = nn.Identity(), None
        return make_tower(copied.visual, DenseMode())

    def out_proj(m: Any) -> nn.Linear:
        return m.visual.transformer.resblocks[-1].attn.out_proj

    for head, alone in one_head_each(model, out_proj, heads):
        last = alone.visual.transformer.resblocks[-1]
        width, part = normed.shape[-1], normed.shape[-1] // heads
        rows = slice(2 * width, 3 * width)
        value = F.linear(normed, block.attn.in_proj_weight[rows], block.attn.in_proj_bias[rows])
        first = torch.zeros_like(value[:, :1])
        own_part = slice(head * part, (head + 1) * part)
        first[..., own_part] = value[:, :1, own_part]
        first = last.ls_1(last.attn.out_proj(first))  # the class token's own value
        patches, _ = bare(alone)(batch)
        values = torch.cat([first, patches.flatten(1, 2)], 1)
        pooled = pooled + torch.einsum("bl,bld->bd", weights[:, head, 0], values)
    output = tokens[:, 0] + pooled
    output = output + block.ls_2(block.mlp(block.ln_2(output)))
    embedding = visual.ln_post(output) @ visual.proj
    torch.testing.assert_close(embedding, model.encode_image(batch), atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("family", ["coca", "coca-same-width"])
def test_coca_pooler(family: str) -> None:
    model = random_model(family)
    visual, batch = model.visual, images((64, 64))
    visual.ln_post = nn.Identity()  # linear output, so that heads add up
    pooler = visual.attn_pool
    tokens = pooler.ln_k(input_of(pooler, lambda: model.encode_image(batch)))
    query = pooler.ln_q(pooler.query).expand(len(batch), -1, -1)
    _, weights = pooler.attn(query, tokens, tokens, average_attn_weights=False)
    heads, width = pooler.attn.num_heads, pooler.attn.embed_dim
    matrix = pooler.attn.v_proj_weight
    matrix = pooler.attn.in_proj_weight[2 * width :] if matrix is None else matrix
    value = F.linear(tokens[:, :1], matrix, pooler.attn.in_proj_bias[2 * width :])
    pooled = pooler.attn.out_proj.bias @ visual.proj
    for head, alone in one_head_each(model, lambda m: m.visual.attn_pool.attn.out_proj, heads):
        first = alone.visual.attn_pool.attn.out_proj(value) @ visual.proj
        patches, _ = make_tower(alone.visual, DenseMode())(batch)
        values = torch.cat([first, patches.flatten(1, 2)], 1)
        pooled = pooled + torch.einsum("bl,bld->bd", weights[:, head, 0], values)
    own = visual(batch)[0]
    torch.testing.assert_close(pooled, own, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_siglip_like_pooler() -> None:
    model = random_model("vit-map")
    pooler, batch = model.visual.trunk.attn_pool, images((160, 160))
    # Without the layers after the attention, heads add up.
    pooler.mlp, model.visual.trunk.head = None, nn.Identity()
    tokens = input_of(pooler, lambda: model.encode_image(batch))
    query = pooler.q(pooler.latent.expand(len(batch), -1, -1))
    key = pooler.kv(tokens)[..., : tokens.shape[-1]]
    weights = attention_of_first(query, key, pooler.num_heads)
    pooled = pooler.proj.bias.clone()
    for head, alone in one_head_each(
        model, lambda m: m.visual.trunk.attn_pool.proj, pooler.num_heads
    ):
        patches, _ = make_tower(alone.visual, DenseMode())(batch)
        pooled = pooled + torch.einsum("bl,bld->bd", weights[:, head], patches.flatten(1, 2))
    torch.testing.assert_close(pooled, model.encode_image(batch), atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
def test_timm_class_token() -> None:
    model = random_model("vit-token")
    trunk, batch = model.visual.trunk, images((160, 160))
    block = trunk.blocks[-1]
    tokens = input_of(block, lambda: model.encode_image(batch))
    normed, heads = block.norm1(tokens), block.attn.num_heads
    query, key, value = block.attn.qkv(normed).chunk(3, -1)
    weights = attention_of_first(query, key, heads)
    pooled = block.ls1(block.attn.proj.bias.expand(len(batch), -1))
    for head, alone in one_head_each(model, lambda m: m.visual.trunk.blocks[-1].attn.proj, heads):
        alone.visual.trunk.norm, alone.visual.trunk.head = nn.Identity(), nn.Identity()
        last = alone.visual.trunk.blocks[-1]
        first = last.ls1(last.attn.proj(value[:, :1]))
        patches, _ = make_tower(alone.visual, DenseMode())(batch)
        values = torch.cat([first, patches.flatten(1, 2)], 1)
        pooled = pooled + torch.einsum("bl,bld->bd", weights[:, head], values)
    output = tokens[:, 0] + pooled
    output = output + block.ls2(block.mlp(block.norm2(output)))
    embedding = trunk.head(trunk.norm(output))
    torch.testing.assert_close(embedding, model.encode_image(batch), atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("family", ["fastvit", "efficientnet", "swin"])
def test_with_a_linear_head_the_mean_of_patches_is_the_embedding(family: str) -> None:
    model = random_model(family)
    size = {"fastvit": (96, 128), "efficientnet": (96, 160), "swin": (224, 224)}[family]
    patches, _ = make_tower(model.visual, DenseMode())(images(size))
    own = model.encode_image(images(size))
    torch.testing.assert_close(patches.mean((1, 2)), own, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize("family", ["convnext", "convnext-mlp", "efficientnet"])
def test_an_image_of_one_patch_equals_that_patch(family: str) -> None:
    """Also with a norm or an MLP after the pooling: one position is its own average."""
    model = random_model(family)
    patches, _whole = make_tower(model.visual, DenseMode())(images((32, 32)))
    assert patches.shape[1:3] == (1, 1)
    torch.testing.assert_close(patches[:, 0, 0], model.encode_image(images((32, 32))))


@torch.no_grad()
def test_without_its_norm_convnext_s_mean_of_patches_is_the_embedding() -> None:
    model = random_model("convnext")
    model.visual.trunk.head.norm = nn.Identity()  # the only nonlinear step of the head
    patches, _ = make_tower(model.visual, DenseMode())(images((96, 64)))
    own = model.encode_image(images((96, 64)))
    torch.testing.assert_close(patches.mean((1, 2)), own, atol=TOLERANCE, rtol=TOLERANCE)


@torch.no_grad()
@pytest.mark.parametrize(
    "family", ["resnet", "vit-one-block", "convnext", "vit-gap", "vit-token", "coca"]
)
def test_patches_are_in_reading_order(family: str) -> None:
    """A change in one corner of an image changes that corner's vector most."""
    model = random_model(family)
    size = (160, 160) if hasattr(model.visual, "trunk") else (64, 64)
    tower = make_tower(model.visual, DenseMode())
    before = images(size, count=16)
    after = before.clone()
    after[:, :, -16:, :16] += 1.0  # bottom left
    moved = (tower(after)[0] - tower(before)[0]).norm(dim=-1).mean(0)
    rows, columns = moved.shape
    assert int(moved.argmax()) == (rows - 1) * columns

"""The dense modes of vision transformers against their formulas in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from random_models import VITS, random_model, tokenizer

from hardmine.encoders.dense import DenseMode, parse_dense
from hardmine.encoders.open_clip import OpenClipEncoder, make_tower
from hardmine.encoders.resnet import ResNetTower
from hardmine.errors import InputError


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("value", DenseMode()),
        ("maskclip", DenseMode()),
        ("qq", DenseMode(("qq",))),
        ("clearclip", DenseMode(("qq",))),
        ("sclip", DenseMode(("qq", "kk"), residual=True, mlp=True)),
        ("naclip", DenseMode(("kk",), window=5)),
        ("window=2.5+kk", DenseMode(("kk",), window=2.5)),
        ("value+residual", DenseMode(residual=True)),
        ("value+no-positions", DenseMode(positions=False)),
        ("qk+residual+mlp", DenseMode(("qk",), residual=True, mlp=True)),
    ],
)
def test_parse(text: str, mode: DenseMode) -> None:
    assert parse_dense(text) == mode
    assert parse_dense(str(mode)) == mode


@pytest.mark.parametrize(
    "text",
    [
        "",
        "values",
        "qq+qq",
        "value+qq",
        "residual",
        "value+window=3",
        "kk+window=0",
        "kk+window=x",
        "qq+no-positions",
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(InputError, match="dense mode"):
        parse_dense(text)


@torch.no_grad()
def test_a_resnet_without_positions_is_maskclip_to_the_letter() -> None:
    """MaskCLIP makes the pool's two projections 1 × 1 convolutions over the last feature map."""
    model: Any = random_model("resnet", image_size=96)
    pool = model.visual.attnpool
    features: list[torch.Tensor] = []
    hook = pool.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    batch = torch.randn((2, 3, 96, 96), generator=torch.Generator().manual_seed(5))
    whole = model.encode_image(batch)
    hook.remove()
    maps = features[0]
    for projection in (pool.v_proj, pool.c_proj):
        maps = F.conv2d(maps, projection.weight[:, :, None, None], projection.bias)
    tower = make_tower(model.visual, parse_dense("value+no-positions"))
    patches, own_whole = tower(batch)
    torch.testing.assert_close(patches, maps.permute(0, 2, 3, 1), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(own_whole, whole, atol=1e-4, rtol=1e-4)
    with_positions, _ = ResNetTower(model.visual)(batch)
    assert (with_positions - patches).abs().max() > 0.01


@pytest.mark.parametrize("family", ["vit", "convnext"])
def test_only_resnets_go_without_positions(family: str) -> None:
    model: Any = random_model(family)
    with pytest.raises(InputError, match="needs open_clip's ModifiedResNet"):
        make_tower(model.visual, parse_dense("value+no-positions"))


def formula(block: Any, tokens: torch.Tensor, mode: DenseMode, grid: tuple[int, int]) -> Any:
    """The mode's formula, one head and one patch at a time."""
    attention = block.attn
    width = tokens.shape[-1]
    part = width // attention.num_heads
    normed = block.ln_1(tokens)
    projected = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)
    sides = dict(zip("qkv", projected.split(width, -1), strict=True))
    places = [(row, column) for row in range(grid[0]) for column in range(grid[1])]
    out = torch.zeros_like(tokens[:, 1:])
    for batch in range(len(tokens)):
        for patch, (row, column) in enumerate(places):
            context = torch.zeros(width, dtype=tokens.dtype)
            for head in range(attention.num_heads):
                own = slice(head * part, (head + 1) * part)
                value = sides["v"][batch, :, own]
                if not mode.attention:
                    context[own] = value[1 + patch]
                for a, b in mode.attention:
                    logits = sides[b][batch, :, own] @ sides[a][batch, 1 + patch, own] / part**0.5
                    if mode.window:
                        for other, (r, c) in enumerate(places):
                            squared = (r - row) ** 2 + (c - column) ** 2
                            near = torch.tensor(-squared / (2 * mode.window**2)).exp()
                            logits[1 + other] += near
                    context[own] += logits.softmax(0) @ value
            out[batch, patch] = block.ls_1(attention.out_proj(context))
    if mode.residual:
        out = out + tokens[:, 1:]
    if mode.mlp:
        out = out + block.ls_2(block.mlp(block.ln_2(out)))
    return out


@torch.no_grad()
@pytest.mark.parametrize("family", ["vit", "vit-layer-scale"])
@pytest.mark.parametrize(
    "text",
    ["value", "value+mlp", "qq", "kk", "vv", "qk", "sclip", "naclip", "vv+qq+window=1+residual"],
)
def test_a_mode_equals_its_formula(family: str, text: str) -> None:
    mode, grid = parse_dense(text), (2, 3)
    model = random_model(family, image_size=(32, 48), patch_size=16).double()
    visual: Any = model.visual
    batch = torch.randn((2, 3, 32, 48), generator=torch.Generator().manual_seed(0)).double()
    block, caught = visual.transformer.resblocks[-1], []
    hook = block.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    model.encode_image(batch)
    hook.remove()
    expected = visual.ln_post(formula(block, caught[0], mode, grid)) @ visual.proj
    patches, _ = make_tower(visual, mode)(batch)
    # The window is computed in float32.
    tolerance = 1e-6 if mode.window else 1e-10
    torch.testing.assert_close(patches.flatten(1, 2), expected, atol=tolerance, rtol=tolerance)


@torch.no_grad()
@pytest.mark.parametrize("family", [name for name in VITS if name != "vit-average-then-norm"])
def test_ordinary_attention_gives_open_clip_s_tokens(family: str) -> None:
    model = random_model(family)
    visual: Any = model.visual
    batch = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    visual.output_tokens = True
    _, tokens = visual(batch)
    if visual.final_ln_after_pool:
        tokens = visual.ln_post(tokens)
    visual.output_tokens = False
    patches, _ = make_tower(visual, parse_dense("qk+residual+mlp"))(batch)
    own = tokens @ visual.proj
    torch.testing.assert_close(patches.flatten(1, 2), own, atol=1e-4, rtol=1e-4)


def test_modes_change_patches_and_fingerprint_but_not_whole() -> None:
    model = random_model("vit")
    batch = torch.randn((2, 3, 64, 64), generator=torch.Generator().manual_seed(0))
    seen: list[torch.Tensor] = []
    prints = set()
    for text in ("value", "qq", "kk", "naclip", "sclip"):
        encoder = OpenClipEncoder(model, tokenizer(), dense=text)
        features = encoder.encode_images(batch)
        prints.add(encoder.fingerprint)
        for patches, whole in zip(seen[::2], seen[1::2], strict=True):
            assert (features.patches - patches).abs().max() > 0.01
            torch.testing.assert_close(features.whole, whole)
        seen += [features.patches, features.whole]
    assert len(prints) == 5


@pytest.mark.parametrize("family", ["resnet", "coca", "convnext", "vit-token"])
def test_other_modes_are_an_error_on_other_towers(family: str) -> None:
    with pytest.raises(InputError, match=r"'qq'.*use dense='value'"):
        OpenClipEncoder(random_model(family), tokenizer(), dense="qq")

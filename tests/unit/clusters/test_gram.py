"""Cosine matrices against products in float64 and in integers."""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from hardmine.clusters.gram import cosine_grid, grid_unit

# By name, because the package attribute ``gram`` is the function.
module = importlib.import_module("hardmine.clusters.gram")


def patches_of(batch: int, count: int, dim: int) -> torch.Tensor:
    draw = torch.Generator().manual_seed(4)
    return F.normalize(torch.randn(batch, count, dim, generator=draw), dim=-1)


def whole_products(patches: torch.Tensor) -> torch.Tensor:
    """The result that ``cosine_grid`` documents, computed in integers."""
    limit = min(127, int(4095 / patches.shape[2] ** 0.5))
    grids = []
    for vectors in patches:
        steps = 2 ** math.floor(math.log2(limit / float(vectors.abs().max() or 1)))
        numbers = (vectors * steps).round().to(torch.int64)
        scaled = (numbers @ numbers.T).float() * (grid_unit(len(vectors)) / steps**2)
        grids.append(scaled.round())
    return torch.stack(grids)


@pytest.mark.parametrize("library", ["onednn", "mkl", "numpy"])
@pytest.mark.parametrize(("count", "dim"), [(1, 5), (2, 1), (49, 64), (63, 37), (196, 128)])
def test_gram_equals_the_product_and_is_symmetric(
    count: int, dim: int, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if library != "numpy" and not module.has_onednn():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(module, "has_onednn", lambda: library != "numpy")
    monkeypatch.setattr(module, "mkl_is_faster", lambda: library == "mkl")
    patches = patches_of(3, count, dim)
    cosines = module.gram(patches)
    exact = patches.double() @ patches.double().mT
    torch.testing.assert_close(cosines.double(), exact, rtol=0, atol=1e-6)
    assert torch.equal(cosines, cosines.mT)
    # An image's cosines do not depend on its place in a batch.
    assert torch.equal(module.gram(patches[1:])[0], cosines[1])
    assert torch.equal(module.gram(patches[1:].clone())[0], cosines[1])
    monkeypatch.setattr(module, "_HALVED_FROM", 0)  # oneDNN in two calls: the same bits
    assert torch.equal(module.gram(patches), cosines)


@pytest.mark.parametrize("in_bytes", [True, False])
@pytest.mark.parametrize(("count", "dim"), [(1, 5), (2, 1), (49, 64), (196, 300), (20, 5000)])
def test_the_grid_is_exact_in_int8_and_in_float32(
    count: int, dim: int, in_bytes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if in_bytes and not module.multiplies_bytes():
        pytest.skip("this processor multiplies no bytes")
    monkeypatch.setattr(module, "multiplies_bytes", lambda: in_bytes)
    patches = patches_of(3, count, dim)
    patches[1] = dim**-0.5  # all equal: the largest possible sums
    patches[2, 0] = 0
    grid = cosine_grid(patches)
    assert torch.equal(grid, whole_products(patches))
    cosines = (patches.double() @ patches.double().mT).float()
    torch.testing.assert_close(grid / grid_unit(count), cosines, rtol=0, atol=0.02)


def test_the_scale_of_an_image_does_not_depend_on_the_image_before() -> None:
    peaks = [9.0, 0.0, 1e-3, 0.2]
    for steps in (127, 127.4, 126.6, 64.6, 64, 63.5, 63.4, 0.4, 300):  # of 1 / 512, as 0.2 has
        peaks += [steps / 512, 0.2]
    draw = torch.Generator().manual_seed(4)
    patches = torch.rand(len(peaks), 20, 64, generator=draw) - 0.5
    patches *= torch.tensor(peaks)[:, None, None]
    patches[:, 3, 5] = torch.tensor(peaks) * (-1) ** torch.arange(len(peaks))
    for images in (patches, patches.flip(0)):
        assert torch.equal(cosine_grid(images), whole_products(images))


def test_the_grid_is_the_same_on_cpus_with_fewer_instructions(
    capsys: pytest.CaptureFixture[str],
) -> None:
    # Vectors are made by NumPy: torch's normalisation depends on the CPU's instructions.
    script = (
        "import hashlib, numpy, torch\n"
        "from hardmine.clusters.gram import cosine_grid\n"
        "vectors = numpy.random.default_rng(4).standard_normal((32, 196, 512))\n"
        "vectors /= numpy.linalg.norm(vectors, axis=-1, keepdims=True)\n"
        "grid = cosine_grid(torch.from_numpy(vectors.astype(numpy.float32)))\n"
        "print(hashlib.sha256(grid.numpy().tobytes()).hexdigest())\n"
    )
    other = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "ATEN_CPU_CAPABILITY": "default"},
        capture_output=True,
        text=True,
        check=True,
    )
    exec(script, {})  # with the instructions that this process has
    assert capsys.readouterr().out == other.stdout


def test_sums_over_a_row_of_the_grid_are_exact() -> None:
    for count in (1, 2, 3, 196, 256, 1024, 1025):
        unit = grid_unit(count)
        assert unit == int(unit)
        assert count * unit <= 2**23


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_every_row_shows_a_value_that_is_not_finite(bad: float) -> None:
    patches = patches_of(3, 10, 8)
    patches[1, 4, 2] = bad
    patches[1, 0] = 0
    for product in (module.gram, cosine_grid):
        cosines = product(patches)
        assert torch.isfinite(cosines[::2]).all()
        assert not torch.isfinite(cosines[1]).all(1).any()


def test_global_reduced_precision_does_not_affect_gram() -> None:
    patches = patches_of(2, 30, 256)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium")
    try:
        cosines = module.gram(patches)
    finally:
        torch.set_float32_matmul_precision(before)
    exact = patches.double() @ patches.double().mT
    torch.testing.assert_close(cosines.double(), exact, rtol=0, atol=1e-6)

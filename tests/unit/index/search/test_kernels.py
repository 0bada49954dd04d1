"""Each fast operation against torch's or NumPy's plain one."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from hardmine.index.search.kernels import (
    SHIFT_CENTER,
    SHIFT_SCALE,
    SMALLEST_NORMAL,
    bits_of,
    float32_product,
    floats_of,
    max_over_middle,
    positions_at_least,
    shift_to_bfloat16,
)

DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def test_every_float16_as_bfloat16() -> None:
    every = torch.arange(-(2**15), 2**15).to(torch.int16).view(torch.float16)
    every = every[every.isfinite()][None]
    narrow = torch.empty(every.shape, dtype=torch.bfloat16)
    shift_to_bfloat16(every, narrow)
    exact = every.double()
    error = (narrow.double() * SHIFT_SCALE * SHIFT_CENTER - exact).abs()
    normal = exact.abs() >= SMALLEST_NORMAL
    assert (error[normal] <= (SHIFT_CENTER - 1) * exact[normal].abs() * (1 + 1e-12)).all()
    # Smaller numbers may become zero: the error is at most the number itself.
    assert (error[~normal] <= SMALLEST_NORMAL).all()
    assert (exact[~normal].abs() < SMALLEST_NORMAL).all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("columns", [5, 300])
@pytest.mark.parametrize("each", [1, 2, 3, 7, 50])
def test_max_over_middle(each: int, columns: int, dtype: torch.dtype) -> None:
    rng = np.random.default_rng(each)
    values = torch.from_numpy(rng.standard_normal((4, each, columns))).to(dtype)
    expected = values.double().numpy().max(axis=1)
    np.testing.assert_array_equal(max_over_middle(values).double().numpy(), expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_bits_of_scores(dtype: torch.dtype) -> None:
    scores = torch.tensor([[0.0, -0.5, 2.0**-20], [-2.0, 1e-30, 1.0]]).to(dtype)
    rows, columns = np.array([1, 0, 1]), np.array([2, 1, 1])
    found = floats_of(bits_of(scores)[rows, columns], dtype)
    assert found.tolist() == scores.float().numpy()[rows, columns].tolist()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_positions_at_least(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(0.2 * rng.standard_normal((500, 6))).to(dtype)
    scores[0], scores[1] = 0.0, -0.0
    # Thresholds equal to a score, between two values of the dtype, and one tiny threshold.
    least = scores[7].float().abs().numpy() + np.array([0, 0, 1e-5, 1e-5, 1e-3, 0], np.float32)
    least[5] = 1e-30
    found = positions_at_least(scores, least)
    wide = scores.double().numpy()
    needed = np.flatnonzero(wide >= least)
    assert np.isin(needed, found).all()
    allowed = np.flatnonzero(wide >= least * (1 - torch.finfo(dtype).eps) - 1e-7)
    assert np.isin(found, allowed).all()


@pytest.mark.parametrize("dim", [3, 512])
def test_float32_product(dim: int) -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((300, dim)).astype(np.float32) / dim
    queries = rng.standard_normal((7, dim)).astype(np.float32)
    product = float32_product(torch.from_numpy(rows), torch.from_numpy(queries))
    exact = rows.astype(np.float64) @ queries.T.astype(np.float64)
    np.testing.assert_allclose(product.numpy(), exact, atol=1e-6)

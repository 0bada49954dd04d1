"""The fast product against float64: never further off than it says."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from half_precision import PRODUCTS

from hardmine.index.search.blocks import Block, max_by_image, region_rows
from hardmine.index.search.product import Product, fastest_dtype
from hardmine.index.search.top_k import exact_scores
from hardmine.index.storage.store import quantize_rows

DTYPES = [torch.float32, torch.bfloat16, torch.float16]  # that a search may choose


def unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norms > 0, norms, 1)).astype(np.float32)


def block_of(vectors: np.ndarray, scales: np.ndarray | None = None) -> Block:
    count = len(vectors)
    rows = np.arange(count)
    return Block(rows, np.arange(count + 1), rows, torch.from_numpy(vectors), scales, 0)


def directions(kind: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, D) queries and (R, D) regions of a kind that rounding does not like."""
    rng = np.random.default_rng(0)
    regions, queries = rng.standard_normal((300, dim)), rng.standard_normal((5, dim))
    if kind == "one large component":
        regions[:, 0] = queries[:, 0] = 30
    if kind == "tiny components":
        regions[:, 1:] *= 1e-6
        queries[:, : dim // 2] *= 1e-4
    if kind == "all rounded the same way":
        # Just above the middle between two bfloat16 numbers, all of one sign.
        regions = np.full((300, dim), 1 + 2.0**-8 + 2.0**-10)
        queries = np.full((5, dim), 1 + 2.0**-8 + 2.0**-11)
    if kind == "cancelling":
        half = dim // 2
        regions[:, half : 2 * half] = regions[:, :half]
        queries[:, half : 2 * half] = -queries[:, :half] * (1 + 1e-4)
    return unit(queries), unit(regions)


@pytest.mark.parametrize("dtype", PRODUCTS, ids=str)
@pytest.mark.parametrize("int8", [False, True], ids=["float16", "int8"])
@pytest.mark.parametrize("dim", [3, 512])
@pytest.mark.parametrize(
    "kind",
    [
        "random",
        "one large component",
        "tiny components",
        "all rounded the same way",
        "cancelling",
    ],
)
def test_the_bound_holds(kind: str, dim: int, int8: bool, dtype: torch.dtype) -> None:
    queries, regions = directions(kind, dim)
    stored, scales = quantize_rows(regions) if int8 else (regions.astype(np.float16), None)
    wide = stored.astype(np.float64) * (1.0 if scales is None else scales[:, None])
    exact = queries.astype(np.float64) @ wide.T
    product = Product(queries, dtype)
    scores = product(block_of(stored, scales))
    error = np.abs(scores.double().numpy().T - exact)
    assert (error <= product.absolute[:, None] + product.relative * np.abs(exact)).all()
    # And is no excuse for anything: hundredths at most.
    assert product.absolute.max() < {2: 0.02, 4: 1e-4}[dtype.itemsize]


def test_exact_scores_do_not_depend_on_the_place() -> None:
    rng = np.random.default_rng(1)
    vector, query = unit(rng.standard_normal((2, 512)))
    vectors = np.tile(vector.astype(np.float16), (5001, 1))
    rows = np.arange(5001)[::-1].copy()
    scores = exact_scores(torch.from_numpy(vectors), None, rows, query.astype(np.float64))
    assert len(np.unique(scores)) == 1
    assert scores[0] == pytest.approx(float(vectors[0].astype(np.float64) @ query), abs=1e-11)


def test_queries_that_half_precision_cannot_hold() -> None:
    queries = np.full((1, 4), 1e6, np.float32)
    product = Product(queries, torch.float16)
    scores = product(block_of(np.full((1, 4), 0.5, np.float16)))
    assert scores.tolist() == [[2e6]]


def test_the_fastest_type_is_one_that_exists() -> None:
    assert fastest_dtype(64, 80, torch.device("cpu")) in DTYPES
    assert fastest_dtype(64, 0, torch.device("cpu")) in DTYPES


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        pytest.param([0], [], id="no image"),
        pytest.param([0, 0, 0], [-np.inf, -np.inf], id="no regions"),
        pytest.param([0, 2, 4], [2.0, 4.0], id="even"),
        pytest.param([0, 0, 3, 3, 4, 4], [-np.inf, 3.0, -np.inf, 4.0, -np.inf], id="ragged"),
    ],
)
def test_max_by_image(offsets: list[int], expected: list[float]) -> None:
    values = np.array([[1.0, 2.0, 3.0, 4.0]], np.float32).T[: offsets[-1]]
    assert max_by_image(values, np.array(offsets))[:, 0].tolist() == expected


def test_region_rows_of_no_image() -> None:
    assert region_rows(np.array([0, 2]), np.zeros(0, np.int64)).tolist() == []

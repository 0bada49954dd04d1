"""The fast product: its error against float64 stays within its bound, and no timing chooses it."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from half_precision import STORED_PRODUCTS, needs_half_product

from hardmine.index.search import product
from hardmine.index.search.blocks import Block, max_by_image, region_rows
from hardmine.index.search.exact import index_from_regions
from hardmine.index.search.int8 import TwoByteQueries
from hardmine.index.search.product import Product, can_multiply, search_dtype
from hardmine.index.search.top_k import exact_scores
from hardmine.index.storage.store import quantize_rows


def unit(vectors: np.ndarray) -> np.ndarray:
    wide = vectors.astype(np.float64)
    norms = np.linalg.norm(wide, axis=1, keepdims=True)
    return (wide / np.where(norms > 0, norms, 1)).astype(np.float32)


def block_of(vectors: np.ndarray, scales: np.ndarray | None = None) -> Block:
    count = len(vectors)
    rows, half = np.arange(count), count // 2
    pieces = (torch.from_numpy(vectors[:half]), torch.from_numpy(vectors[half:]))
    return Block(rows, np.arange(count + 1), 0 * rows, rows, pieces, scales)


def directions(kind: str, dim: int) -> tuple[np.ndarray, np.ndarray]:
    """(C, D) queries and (R, D) regions on which rounding errors are large."""
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


@pytest.mark.parametrize(("int8", "dtype"), STORED_PRODUCTS)
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
    # int8 vectors are multiplied in another way by one or two queries.
    for part in (queries, queries[:1]):
        exact = part.astype(np.float64) @ wide.T
        multiply = Product(part, dtype, repeatable=False)
        scores = multiply(block_of(stored, scales))
        error = np.abs(scores.double().numpy().T - exact)
        assert (error <= multiply.absolute[:, None] + multiply.relative * np.abs(exact)).all()
        # The bound is tight: 0.02 at most.
        assert multiply.absolute.max() < {1: 1e-3, 2: 0.02, 4: 1e-4}[dtype.itemsize]


@pytest.mark.parametrize("dim", [1, 512, 1037, 8192])
def test_queries_of_two_bytes_never_overflow(dim: int) -> None:
    """With the largest sums that there can be, of either sign."""
    ends = torch.tensor([[1.0], [-1.0]]).expand(2, dim)
    queries = TwoByteQueries((ends * dim**-0.5).numpy())
    vectors = torch.cat([127 * ends, -128 * ends[:1]]).to(torch.int8)
    sums, out = torch.empty((3, 4), dtype=torch.int32), torch.empty((3, 2), dtype=torch.int32)
    scores = queries.multiply(vectors, sums, out).double() * queries.scale
    exact = vectors.double() @ ends.T.double() * dim**-0.5
    torch.testing.assert_close(scores, exact, rtol=1e-3, atol=0)


def test_exact_scores_do_not_depend_on_the_place() -> None:
    rng = np.random.default_rng(1)
    vector, query = unit(rng.standard_normal((2, 512)))
    vectors = np.tile(vector.astype(np.float16), (5001, 1))
    store = index_from_regions(vectors, np.arange(5002), ids=np.arange(5001)).store
    rows = np.arange(5001)[::-1].copy()
    same = np.zeros(5001, np.int64)
    scores = exact_scores(store, query[None].astype(np.float64), same, same, rows)
    assert len(np.unique(scores)) == 1
    assert scores[0] == pytest.approx(float(vectors[0].astype(np.float64) @ query), abs=1e-11)


def test_queries_beyond_half_precision_are_multiplied_in_float32() -> None:
    queries = np.full((1, 4), 1e6, np.float32)
    multiply = Product(queries, torch.float16)
    scores = multiply(block_of(np.full((1, 4), 0.5, np.float16)))
    assert scores.tolist() == [[2e6]]


SCORES_UNDER_A_FALSE_CLOCK = """
import hashlib, itertools, sys, time
steps = itertools.count(1)
elapsed = 0.0

def false_clock():
    global elapsed
    elapsed += next(steps) ** int(sys.argv[1])
    return elapsed

time.perf_counter = false_clock
import numpy as np, torch
from hardmine.index.search.exact import index_from_regions
from hardmine.index.search.int8 import TwoByteQueries
from hardmine.index.search.product import Product

torch.set_num_threads(1)
vectors = np.random.default_rng(0).standard_normal((600, 512)).astype(np.float32)
vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
index = index_from_regions(vectors[:500], np.arange(501), ids=np.arange(500))
for count in (1, 8, 80):
    queries = vectors[-count:]
    scores = index.scores(queries)
    print(Product(queries).dtype, hashlib.sha256(scores.tobytes()).hexdigest())
"""


def test_two_processes_get_the_same_bits_whatever_the_clock_says() -> None:
    """Under one clock whatever is timed first seems fastest, under the other what is timed last."""
    outputs = [
        subprocess.run(
            [sys.executable, "-c", SCORES_UNDER_A_FALSE_CLOCK, power],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for power in ("1", "-1")
    ]
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == 3


@pytest.fixture
def cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Pretend that the CPU has the given instructions."""
    monkeypatch.setattr(product, "half_precision_units", lambda: request.param)


@pytest.mark.parametrize(
    ("cpu", "expected"),
    [
        pytest.param(None, torch.float32, id="unknown"),
        pytest.param((), torch.float32, id="AVX2 only"),
        pytest.param(("avx_ne_convert",), torch.float32, id="conversion only"),
        pytest.param(("avx512_bf16",), torch.bfloat16, id="Zen 4"),
        pytest.param(
            ("amx_bf16", "avx512_fp16", "avx512_bf16"), torch.bfloat16, id="Sapphire Rapids"
        ),
        pytest.param(
            ("amx_fp16", "amx_bf16", "avx512_fp16", "avx512_bf16"),
            torch.float16,
            marks=needs_half_product,
            id="Granite Rapids",
        ),
        pytest.param(("asimdhp", "bf16"), torch.bfloat16, id="Graviton 3"),
    ],
    indirect=["cpu"],
)
@pytest.mark.usefixtures("cpu")
def test_the_dtype_follows_from_the_instructions(expected: torch.dtype) -> None:
    assert search_dtype(512, 80) == expected


@pytest.mark.parametrize("version", ["2.5.1", "2.10.0+cu130"])
def test_few_queries_read_float16_as_it_is_stored(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "half_precision_units", lambda: ())
    monkeypatch.setattr(torch, "__version__", version)
    half = version != "2.5.1" and can_multiply(torch.float16)
    expected = torch.float16 if half else torch.float32
    assert [search_dtype(512, count) for count in (0, 1, 2, 3)] == [
        expected,
        expected,
        expected,
        torch.float32,
    ]


@pytest.mark.parametrize(
    ("capability", "dim", "expected"),
    [
        pytest.param("AVX2", 512, torch.bfloat16, id="as it is stored"),
        pytest.param("AVX2", 500, torch.float32, id="dimension no multiple of 32"),
        pytest.param("DEFAULT", 512, torch.float32, id="no such product"),
    ],
)
def test_few_queries_never_convert_int8_to_float16(
    capability: str, dim: int, expected: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(product, "half_precision_units", lambda: ())
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    monkeypatch.setattr(product, "_can_multiply_int8", lambda: True)
    monkeypatch.setattr(product, "multiplies_bytes", lambda: False)
    chosen = [search_dtype(dim, count, int8=True) for count in (1, 2, 3)]
    assert chosen == [expected, expected, torch.float32]


def test_several_queries_are_multiplied_in_bytes_where_the_cpu_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(product, "multiplies_bytes", lambda: True)
    monkeypatch.setattr(product, "can_multiply", lambda *_: True)
    assert search_dtype(512, 3, int8=True) == torch.int8
    assert search_dtype(512, 2, int8=True) != torch.int8
    assert search_dtype(512, 3) != torch.int8


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

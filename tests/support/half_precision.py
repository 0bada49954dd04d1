"""Skips tests that need half precision on a CPU where this torch lacks it."""

from __future__ import annotations

import pytest
import torch

from hardmine.encoders.device import can_compute
from hardmine.index.search.product import can_multiply

_CPU = torch.device("cpu")
_REASON = f"torch {torch.__version__} lacks this in half precision on a CPU"

needs_half_product = pytest.mark.skipif(not can_multiply(torch.float16), reason=_REASON)
needs_half_tower = pytest.mark.skipif(not can_compute("fp16", _CPU), reason=_REASON)

_needs_int8_product = pytest.mark.skipif(
    not can_multiply(torch.int8), reason=f"torch {torch.__version__} lacks it on this CPU"
)
_NEEDS = {torch.float16: needs_half_product, torch.int8: _needs_int8_product}

# dtypes that a search can multiply in.
PRODUCTS = [torch.float32, torch.bfloat16, pytest.param(torch.float16, marks=needs_half_product)]
# Whether vectors are stored in int8, and what they can then be multiplied in.
STORED_PRODUCTS = [
    pytest.param(int8, dtype, marks=_NEEDS.get(dtype, ()), id=f"{stored}-{dtype}")
    for int8, stored in ((False, "float16"), (True, "int8"))
    for dtype in (torch.float32, torch.bfloat16, torch.float16, torch.int8)[: 3 + int8]
]

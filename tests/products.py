"""The float types that a search can be made to multiply in."""

from __future__ import annotations

import pytest
import torch

from hardmine.index.product import can_multiply

PRODUCTS = [
    torch.float32,
    torch.bfloat16,
    pytest.param(
        torch.float16,
        marks=pytest.mark.skipif(
            not can_multiply(torch.float16, torch.device("cpu")),
            reason=f"torch {torch.__version__} has no product in half precision on a CPU",
        ),
    ),
]

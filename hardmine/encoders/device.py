"""Choice of device and precision."""

from __future__ import annotations

import functools

import torch
import torch.nn.functional as F

from hardmine.errors import InputError
from hardmine.processor import require_device

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """Turn a name into a device; None is the GPU if there is one, else the CPU."""
    if device is not None:
        return require_device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str | None, device: torch.device) -> str:
    """Check a name in ``PRECISIONS``; None is the fastest that is safe on the device.

    On a CPU that is fp32: half precision is slower there, unless the CPU has instructions for it.
    """
    if precision is None:
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if not can_compute(precision, device):
        raise InputError(
            f"torch {torch.__version__} cannot compute in {precision} on {device}; use fp32, or "
            "omit precision"
        )
    return precision


@functools.lru_cache
def can_compute(precision: str, device: torch.device) -> bool:
    """Whether this torch has the layers of a tower in a precision; 2.1 lacks fp16 on the CPU."""
    ones = torch.ones((1, 2), dtype=PRECISIONS[precision], device=device)
    try:
        F.linear(F.layer_norm(ones, (2,)), ones)
    except RuntimeError:
        return False
    return True


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors along the last axis to length 1, in float32."""
    return F.normalize(vectors.float(), dim=-1)

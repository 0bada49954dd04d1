"""Where and how precisely to compute."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from hardmine.errors import InputError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str | torch.device | None) -> torch.device:
    """The device asked for; None is the GPU if there is one."""
    if device is not None:
        return torch.device(device)
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve_precision(precision: str | None, device: torch.device) -> str:
    """A name in ``PRECISIONS``; None is the fastest that is safe on the device.

    On a CPU that is fp32: half precision is slower there unless the processor has units for it.
    """
    if precision is None:
        if device.type != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if precision not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def unit(vectors: torch.Tensor) -> torch.Tensor:
    """Scale vectors along the last axis to length 1, in float32."""
    return F.normalize(vectors.float(), dim=-1)

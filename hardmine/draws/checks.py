"""What a sampler is given, checked before the first draw."""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
import torch

from hardmine.errors import InputError


def whole_number(name: str, value: Any) -> int:
    """A whole number, of whatever integer type; a float or None is refused."""
    try:
        return operator.index(value)
    except TypeError:
        raise InputError(
            f"{name} must be a whole number, got {value!r} ({type(value).__name__})"
        ) from None


def checked_weights(weights: Any, num_images: int) -> torch.Tensor:
    """Copy weights into a float64 tensor, or say what is wrong with them."""
    if isinstance(weights, torch.Tensor):
        copied = weights.detach().to("cpu", torch.float64, copy=True)
    else:
        try:
            # Not torch.tensor, which reads lists as float32.
            copied = torch.from_numpy(np.array(weights, np.float64))
        except (TypeError, ValueError) as error:
            raise InputError(f"weights must be numbers, one per image: {error}") from None
    if copied.shape != (num_images,):
        got = len(copied) if copied.dim() == 1 else f"shape {tuple(copied.shape)}"
        raise InputError(
            f"weights must have one value per image (expected {num_images}, got {got}); "
            "was the index built on another split?"
        )
    low, high = (float(end) for end in torch.aminmax(copied))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = (~torch.isfinite(copied)).nonzero().squeeze(1)
        raise InputError(
            f"weights must be finite, got {float(copied[bad[0]])} for image {int(bad[0])} "
            f"and {len(bad) - 1} more"
        )
    if low < 0:
        row = int(copied.argmin())
        raise InputError(f"weights must not be negative, got {low} for image {row}; 0 means never")
    if high == 0:
        raise InputError("weights must not all be zero; equal weights draw every image alike")
    return copied

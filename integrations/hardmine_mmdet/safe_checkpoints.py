"""Lets torch 2.6 and later resume from mmengine's checkpoints with ``weights_only=True``.

That option admits tensors and plain values only. mmengine 0.10 also saves its message hub:
``HistoryBuffer`` objects that hold NumPy arrays. Importing this module adds exactly these types to
torch's safe globals. To resume, add it to a config's ``custom_imports``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from mmengine.logging.history_buffer import HistoryBuffer

try:
    from numpy._core import multiarray
except ImportError:  # NumPy 1
    from numpy.core import multiarray  # type: ignore[no-redef]


def _statistic(owner: Any, name: str) -> Callable[..., Any]:
    """The part of ``getattr`` that a HistoryBuffer's pickle needs: its four statistics."""
    if owner is HistoryBuffer and name in ("min", "max", "mean", "current"):
        statistic: Callable[..., Any] = vars(HistoryBuffer)[name]
        return statistic
    raise ValueError(
        f"the checkpoint needs attribute {name!r} of {owner!r}, which is not on the safe list"
    )


SAFE_GLOBALS: list[Any] = [
    HistoryBuffer,
    (_statistic, "builtins.getattr"),
    np.ndarray,
    np.dtype,
    (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
    (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
    (multiarray.scalar, "numpy._core.multiarray.scalar"),
    (multiarray.scalar, "numpy.core.multiarray.scalar"),
    *{type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "?")},
]

if hasattr(torch.serialization, "add_safe_globals"):
    torch.serialization.add_safe_globals(SAFE_GLOBALS)

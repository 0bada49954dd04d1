"""What draws from a sampler, told from the functions that are running."""

from __future__ import annotations

import sys
from types import FrameType

# Classes that shard what a sampler or batch sampler draws, and the packages they come from.
_SHARDING_CLASSES = frozenset(
    {
        "BatchSamplerShard",
        "DataLoaderDispatcher",
        "DistributedProxySampler",
        "DistributedSamplerWrapper",
        "IterableDatasetShard",
        "_DatasetSamplerWrapper",
    }
)
_PACKAGES = frozenset(
    {
        "accelerate",
        "catalyst",
        "ignite",
        "lightning",
        "lightning_fabric",
        "pytorch_lightning",
        "transformers",
    }
)
_ITERATING = ("__iter__", "__next__")
_NEAR = 4  # functions between a sampler and its batch sampler


def sharding_class() -> str:
    """Name of the class that gives each rank its share of what is drawn; empty if none does."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        # The locals of other functions are left alone: up to Python 3.12, to look at them keeps
        # what they hold alive. These classes are copied into projects too: any package iterates.
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package in _PACKAGES or frame.f_code.co_name in _ITERATING:
            name = type(frame.f_locals.get("self")).__name__
            if name in _SHARDING_CLASSES:
                return name
        frame = frame.f_back
    return ""


def dropping_batch_size() -> int:
    """Batch size of the batch sampler that draws, if it drops the last incomplete batch; else 1."""
    frame: FrameType | None = sys._getframe(1)
    for _ in range(_NEAR):
        frame = None if frame is None else frame.f_back
        if frame is None:
            break
        code = frame.f_code
        if code.co_name in _ITERATING and "self" in code.co_varnames:
            owner = frame.f_locals["self"]
            size, drops = getattr(owner, "batch_size", None), getattr(owner, "drop_last", None)
            if isinstance(size, int) and isinstance(drops, bool):
                return size if drops else 1
    return 1

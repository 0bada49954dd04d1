"""Hard example mining for object detectors.

Public names load on first use, so ``import hardmine`` loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from hardmine._version import __version__
from hardmine.errors import HardmineError

if TYPE_CHECKING:
    from hardmine.config import load_config
    from hardmine.datasets import images_from, load_images
    from hardmine.encoders import load_encoder
    from hardmine.index import build_index, open_index
    from hardmine.miner import HardMiner
    from hardmine.mining.assess import ValidationSet
    from hardmine.mining.need import NeedRules, class_need
    from hardmine.mining.targets import TargetRules
    from hardmine.mining.weights import WeightRules, image_weights
    from hardmine.sampler import HardMiningSampler

_HOME = {
    "load_config": "hardmine.config",
    "images_from": "hardmine.datasets",
    "load_images": "hardmine.datasets",
    "load_encoder": "hardmine.encoders",
    "build_index": "hardmine.index",
    "open_index": "hardmine.index",
    "HardMiner": "hardmine.miner",
    "NeedRules": "hardmine.mining.need",
    "TargetRules": "hardmine.mining.targets",
    "ValidationSet": "hardmine.mining.assess",
    "WeightRules": "hardmine.mining.weights",
    "class_need": "hardmine.mining.need",
    "HardMiningSampler": "hardmine.sampler",
    "image_weights": "hardmine.mining.weights",
}

__all__ = [
    "HardMiner",
    "HardMiningSampler",
    "HardmineError",
    "NeedRules",
    "TargetRules",
    "ValidationSet",
    "WeightRules",
    "__version__",
    "build_index",
    "class_need",
    "image_weights",
    "images_from",
    "load_config",
    "load_encoder",
    "load_images",
    "open_index",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'hardmine' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})

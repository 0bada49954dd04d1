"""The index: region vectors of every image, built once, updated when images change, searched.

``base`` is the interface and ``open`` opens a folder. ``storage`` holds the files on disk,
``search`` scores images, ``sharded`` searches over several processes, ``builder`` makes and changes
the folder. A module imports only what stands before it in this order: ``base``, ``storage``,
``search``, ``open``, ``sharded``, ``builder``.

Names load on first use, so that reading a manifest does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hardmine.index.base import Index
    from hardmine.index.builder.build import build_index
    from hardmine.index.builder.compact import compact_index
    from hardmine.index.builder.join import join_indexes
    from hardmine.index.builder.update import update_index
    from hardmine.index.open import open_index, stored_encoder
    from hardmine.index.search.exact import index_from_regions
    from hardmine.index.storage.manifest import read_manifest
    from hardmine.index.storage.verify import verify_index

_MODULE_OF = {
    "Index": "hardmine.index.base",
    "build_index": "hardmine.index.builder.build",
    "compact_index": "hardmine.index.builder.compact",
    "index_from_regions": "hardmine.index.search.exact",
    "join_indexes": "hardmine.index.builder.join",
    "open_index": "hardmine.index.open",
    "read_manifest": "hardmine.index.storage.manifest",
    "stored_encoder": "hardmine.index.open",
    "update_index": "hardmine.index.builder.update",
    "verify_index": "hardmine.index.storage.verify",
}

__all__ = [
    "Index",
    "build_index",
    "compact_index",
    "index_from_regions",
    "join_indexes",
    "open_index",
    "read_manifest",
    "stored_encoder",
    "update_index",
    "verify_index",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'hardmine.index' has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)

"""Holds some parts of a joined index in one process, and answers for their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hardmine.errors import InputError
from hardmine.index.search.exact import ExactIndex
from hardmine.index.storage.columns import TextColumn
from hardmine.index.storage.joined import read_stores, require_like
from hardmine.index.storage.manifest import read_manifest


@dataclass(frozen=True)
class Held:
    """What a process holds: N images and their parts, as in ``Store``, and how many regions."""

    root: Path
    ids: npt.NDArray[Any]
    paths: TextColumn
    sizes: npt.NDArray[np.int32]
    dim: int
    encoder_fingerprint: str
    clusters: str
    num_regions: int
    parts: tuple[str, ...]


class Holder:
    """Searches some parts exactly. Rows are those of its own images, from 0.

    Args:
        folders: Of the parts, none of them joined.
        device: Where scores are computed.
        verify: As in ``open_index``.
    """

    def __init__(
        self, folders: Sequence[str], device: str | None = None, verify: bool | None = None
    ) -> None:
        store = read_stores([Path(folder) for folder in folders], verify=verify)
        store.read()
        self._index = ExactIndex(store, device)

    def describe(self) -> Held:
        """What is held here."""
        store = self._index.store
        return Held(
            root=store.root,
            ids=store.ids,
            paths=TextColumn.joined([store.paths], [""]),
            sizes=store.sizes,
            dim=store.dim,
            encoder_fingerprint=store.encoder_fingerprint,
            clusters=store.clusters,
            num_regions=store.num_regions,
            parts=store.parts,
        )

    def answer(self, question: str, *arguments: Any) -> Any:
        """Answer by a method of ``ExactIndex``."""
        return getattr(self._index, question)(*arguments)


def split_parts(folders: Sequence[Path], count: int) -> list[list[str]]:
    """Split parts into at most ``count`` groups of about equally many images.

    The order of the parts stays. A part is never split, so some groups may be left out.
    """
    if count < 1:
        raise InputError(f"an index needs at least 1 process to hold it, got {count}")
    manifests = [read_manifest(folder) for folder in folders]
    for folder, manifest in zip(folders, manifests, strict=True):
        require_like(folders[0], manifests[0], folder, manifest)
    images = np.array([manifest.images.count for manifest in manifests], np.float64)
    middles = (np.cumsum(images) - images / 2) / max(images.sum(), 1)
    numbers = np.minimum((middles * count).astype(int), count - 1)
    return [
        [str(folder.absolute()) for folder, own in zip(folders, numbers, strict=True) if own == one]
        for one in np.unique(numbers)
    ]

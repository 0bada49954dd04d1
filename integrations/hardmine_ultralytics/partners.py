"""Lets Mosaic, MixUp and CutMix draw their partners by weight."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from hardmine.hosts import PartnerTable


def install_partners(dataset: Any, table: PartnerTable) -> None:
    """Let the transforms of a data set look up their partners in a table."""
    for transform in _transforms(dataset.transforms):
        # The same Mosaic stands in the list and before MixUp.
        if not isinstance(transform.get_indexes, _WeightedIndexes):
            transform.get_indexes = _WeightedIndexes(table, getattr(transform, "n", None))


def _transforms(transform: Any) -> Iterator[Any]:
    """All transforms that mix images, also those inside others."""
    for inner in getattr(transform, "transforms", None) or ():
        yield from _transforms(inner)
    if getattr(transform, "pre_transform", None) is not None:
        yield from _transforms(transform.pre_transform)
    if callable(getattr(transform, "get_indexes", None)):
        yield transform


class _WeightedIndexes:
    """Replaces ``get_indexes`` of one transform.

    Args:
        table: Where rows are looked up.
        num_images: Images of a mosaic; None for transforms that draw one partner.
    """

    def __init__(self, table: PartnerTable, num_images: int | None) -> None:
        self._rows = table.rows
        self._num_images = num_images

    def __call__(self) -> Any:
        if self._num_images is None:
            return self._draw()
        return [self._draw() for _ in range(self._num_images - 1)]

    def _draw(self) -> int:
        return int(self._rows[random.randrange(len(self._rows))])

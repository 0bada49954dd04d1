"""Lets the Mosaic and MixUp of ``MultiImageMixDataset`` draw their partners by weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hardmine.hosts import PartnerTable
from hardmine_mmdet.labels import wrappers


def install_partners(dataset: Any, *, seed: int = 0) -> PartnerTable | None:
    """Let the mixes of a built data set draw partners by weight; None if nothing mixes images.

    Must run before the loader starts its workers.
    """
    table = None
    for each in wrappers(dataset):
        pipeline = getattr(each, "pipeline", None)
        # Only MultiImageMixDataset has both; the pipelines of other data sets are no lists.
        if not (hasattr(each, "dataset") and isinstance(pipeline, list)):
            continue
        transforms = [transform for transform in pipeline if _draws_partners(transform)]
        if transforms:
            table = table or PartnerTable(len(each.dataset), seed=seed)
            for transform in transforms:
                transform.get_indexes = _WeightedIndexes(transform.get_indexes, table)
    return table


def _draws_partners(transform: Any) -> bool:
    return callable(getattr(transform, "get_indexes", None))


class _WeightedIndexes:
    """A transform's ``get_indexes`` whose uniform draws are looked up in the table."""

    def __init__(self, get_indexes: Callable[[Any], Any], table: PartnerTable) -> None:
        self._get_indexes = get_indexes
        self._rows = table.rows

    def __call__(self, dataset: Any) -> Any:
        if isinstance(dataset, list):
            # The cached variants draw from a list of images that the sampler drew before.
            return self._get_indexes(dataset)
        drawn = self._get_indexes(_TableOrder(dataset, self._rows))
        if isinstance(drawn, Sequence):
            return [int(self._rows[position]) for position in drawn]
        return int(self._rows[drawn])


class _TableOrder:
    """The data set in the order of the table, for transforms that look at what they drew."""

    def __init__(self, dataset: Any, rows: torch.Tensor) -> None:
        self._dataset = dataset
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: int) -> Any:
        return self._dataset[int(self._rows[position])]

"""Mosaic and MixUp partners drawn by the sampler's weights.

``MultiImageMixDataset`` lets its transforms draw the other images of a mix uniformly, past any
sampler and inside the loader's workers. Here the draw goes through a table in shared memory that
names each image as often as its weight says; a new round rewrites the table in place, and
workers that live on see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from hardmine.draws import epoch_stream
from hardmine_mmdet.labels import wrappers


class PartnerTable:
    """Which image to mix in, N entries; shared with the loader's workers.

    Args:
        num_images: N, the length of the data set that partners are drawn from.
        seed: Fixes how shares are rounded to whole entries.
    """

    def __init__(self, num_images: int, *, seed: int = 0) -> None:
        self.rows = torch.arange(num_images, dtype=torch.int32)
        self.rows.share_memory_()  # type: ignore[no-untyped-call]
        self._seed = seed

    def set_weights(self, weights: Any, *, round_number: int = 0) -> None:
        """Name each image as often as its weight says, rounded anew with each round."""
        drawn_by = torch.as_tensor(weights, dtype=torch.float64)
        entries = epoch_stream(
            drawn_by,
            len(self.rows),
            len(self.rows),
            seed=self._seed,
            epoch=round_number,
            shuffle=False,
        )
        # One entry at a time is whole at any moment: a worker that reads now finds old or new.
        self.rows.copy_(entries)


def install_partners(dataset: Any, *, seed: int = 0) -> PartnerTable | None:
    """Let the mixes of a built data set draw by weight; None if nothing in it mixes images.

    Must run before the loader starts its workers.
    """
    table = None
    for each in wrappers(dataset):
        pipeline = getattr(each, "pipeline", None)
        # A MultiImageMixDataset; the pipelines of others are no lists and mix nothing.
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

    def __init__(self, draw: Callable[[Any], Any], table: PartnerTable) -> None:
        self._draw = draw
        self._rows = table.rows

    def __call__(self, dataset: Any) -> Any:
        if isinstance(dataset, list):
            # The cached variants draw from images that the sampler has drawn already.
            return self._draw(dataset)
        drawn = self._draw(_Redrawn(dataset, self._rows))
        if isinstance(drawn, Sequence):
            return [int(self._rows[place]) for place in drawn]
        return int(self._rows[drawn])


class _Redrawn:
    """The data set as the table orders it, for transforms that look at what they drew."""

    def __init__(self, dataset: Any, rows: torch.Tensor) -> None:
        self._dataset = dataset
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, place: int) -> Any:
        return self._dataset[int(self._rows[place])]

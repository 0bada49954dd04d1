"""Mosaic and MixUp partners drawn by the sampling weights.

Mixing transforms draw the other images of a mix uniformly, in the loader's workers, without the
sampler. Here these draws are looked up in a table in shared memory that holds each image as often
as its weight says. A new round rewrites the table in place, so that persistent workers see it.
"""

from __future__ import annotations

from typing import Any

import torch

from hardmine.sampler import HardMiningSampler


class PartnerTable:
    """N image rows to draw partners from, shared with the loader's workers.

    ``table.rows[random.randrange(len(table.rows))]`` is a partner drawn by weight.

    Args:
        num_images: N, the length of the data set that partners are drawn from.
        seed: Fixes how expected counts are rounded to whole ones.

    Attributes:
        rows: (N,) int32, rows of the data set.
    """

    def __init__(self, num_images: int, *, seed: int = 0) -> None:
        self.rows = torch.arange(num_images, dtype=torch.int32)
        self.rows.share_memory_()  # type: ignore[no-untyped-call]
        self._sampler = HardMiningSampler(
            num_images, seed=seed, shuffle=False, rank=0, world_size=1
        )

    def set_weights(self, weights: Any, *, round_number: int = 0) -> None:
        """Fill the table by new weights; each round rounds the counts anew."""
        self._sampler.set_weights(weights)
        self._sampler.set_epoch(round_number)
        # Entries change one by one: a worker that reads now gets an old or a new row, never else.
        self.rows.copy_(torch.tensor(list(self._sampler), dtype=torch.int32))

"""``HardMiningSampler`` as mmengine builds samplers."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sized
from itertools import chain
from typing import Any

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS

import hardmine


@DATA_SAMPLERS.register_module()
class HardMiningSampler(hardmine.HardMiningSampler):
    """Stands in a config where ``DefaultSampler`` or ``InfiniteSampler`` stood.

    With equal weights an epoch holds each image once, as with ``DefaultSampler``. It also stands
    inside ``AspectRatioBatchSampler``.

    Args:
        dataset: Given by the runner.
        seed: Given by the runner; None takes one that all ranks share.
        shuffle: Whether to shuffle.
        epoch_length: Draws an epoch over all ranks; the length of the data set if None.
        infinite: For ``IterBasedTrainLoop``.

    Attributes:
        drawn: Gets every image drawn, if it is not None.
        waiting: Images drawn before anything else: a batch sampler had kept them back for a batch
            when the run was saved.
    """

    def __init__(
        self,
        dataset: Sized,
        seed: int | None = None,
        *,
        shuffle: bool = True,
        epoch_length: int | None = None,
        infinite: bool = False,
    ) -> None:
        rank, world_size = get_dist_info()
        super().__init__(
            dataset,
            epoch_length=epoch_length,
            seed=sync_random_seed() if seed is None else seed,
            shuffle=shuffle,
            rank=rank,
            world_size=world_size,
            infinite=infinite,
        )
        self.drawn: deque[int] | None = None
        self.waiting: list[int] = []

    def __iter__(self) -> Iterator[int]:
        for row in chain(self.waiting, super().__iter__()):
            if self.drawn is not None:
                self.drawn.append(row)
            yield row

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a state was taken, with the images that waited for a batch, if any."""
        super().load_state_dict(state)
        self.waiting = list(state.get("waiting", ()))

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch from mmengine's hook, unless passes are counted here.

        In iteration-based training the hook always says 0, which would send a resumed sampler back.
        """
        if not self.infinite:
            super().set_epoch(epoch)

"""``HardMiningSampler`` as mmengine builds samplers."""

from __future__ import annotations

from collections.abc import Sized

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

    def set_epoch(self, epoch: int) -> None:
        """Take the epoch from mmengine's hook, unless passes are counted here.

        In iteration-based training the hook always says 0, which would send a resumed sampler back.
        """
        if not self.infinite:
            super().set_epoch(epoch)

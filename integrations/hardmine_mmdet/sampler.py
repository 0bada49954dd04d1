"""``HardMiningSampler`` for mmengine's registry."""

from __future__ import annotations

from collections.abc import Sized

from mmengine.dist import get_dist_info, sync_random_seed
from mmengine.registry import DATA_SAMPLERS

from hardmine.hosts import RecordedSampler


@DATA_SAMPLERS.register_module()
class HardMiningSampler(RecordedSampler):
    """Replaces ``DefaultSampler`` or ``InfiniteSampler`` in a config.

    With equal weights an epoch draws each image once, as with ``DefaultSampler``. It also works
    inside ``AspectRatioBatchSampler``.

    Args:
        dataset: Passed by the runner.
        seed: Passed by the runner; None draws one that all ranks share.
        shuffle: Whether to shuffle.
        epoch_length: Draws an epoch over all ranks; the length of the data set if None.
        infinite: Whether to draw without end, as ``IterBasedTrainLoop`` needs.
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
        """Set the epoch, in training by epochs.

        In training by iterations mmengine always passes 0, which would send a resumed sampler back
        to the start. The infinite sampler counts its passes itself, so it ignores the call.
        """
        if not self.infinite:
            super().set_epoch(epoch)

"""Access to mmengine's train loop: its sampler, its data set wrappers, its iterator."""

from __future__ import annotations

from typing import Any

import mmengine
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.utils import digit_version

from hardmine.errors import InputError
from hardmine.hosts import SkippedBatches, find_sampler
from hardmine_mmdet.labels import wrappers
from hardmine_mmdet.sampler import HardMiningSampler

_LOOP_REPEATS_BATCHES = digit_version(mmengine.__version__) >= digit_version("0.10.3")


def training_sampler(loop: Any) -> HardMiningSampler:
    """Find the ``HardMiningSampler`` of a training loop.

    Raises:
        InputError: If the loop has another sampler, or one for the other kind of loop.
    """
    sampler = find_sampler(
        loop.dataloader,
        advice="set sampler=dict(type='HardMiningSampler') in train_dataloader, with infinite=True "
        "for iteration-based training",
    )
    if not isinstance(sampler, HardMiningSampler):
        raise InputError(
            "the training loader draws with hardmine.HardMiningSampler; mmengine needs the one of "
            "hardmine_mmdet: set sampler=dict(type='HardMiningSampler') in train_dataloader"
        )
    _check_infinite(loop, sampler)
    return sampler


def _check_infinite(loop: Any, sampler: HardMiningSampler) -> None:
    if isinstance(loop, IterBasedTrainLoop) and not sampler.infinite:
        raise InputError(
            "IterBasedTrainLoop draws without end; set infinite=True for the HardMiningSampler in "
            "train_dataloader"
        )
    if isinstance(loop, EpochBasedTrainLoop) and sampler.infinite:
        raise InputError(
            "with infinite=True an epoch of HardMiningSampler never ends; remove it from "
            "train_dataloader, or train with IterBasedTrainLoop"
        )


def is_iteration_based(loop: Any) -> bool:
    """Whether the loop counts iterations instead of epochs."""
    return isinstance(loop, IterBasedTrainLoop)


def restart_loader(loop: Any, *, skip: int) -> None:
    """Restart the loader of an iteration-based loop, so that it draws by the present sampler.

    Since mmengine 0.10.3 a resumed loop requests all batches that were trained before and discards
    them. The sampler already continues where it stopped, so these requests get None at no cost.

    Args:
        loop: The train loop.
        skip: Number of batches that the loop will request and discard.
    """
    running = loop.dataloader_iterator
    iterator: Any = type(running.batches if isinstance(running, _Skipping) else running)
    requests = _LOOP_REPEATS_BATCHES and not hasattr(iterator, "skip_iter")
    loop.dataloader_iterator = _Skipping(iterator(loop.dataloader), skip if requests else 0)


class _Skipping(SkippedBatches):
    def skip_iter(self, num_iters: int) -> None:
        """Do nothing; the loop of onedl-mmengine calls this to skip batches."""


def balances_classes(dataset: Any) -> bool:
    """Whether a ``ClassBalancedDataset`` is among the data set and its wrappers."""
    return any(hasattr(each, "repeat_indices") for each in wrappers(dataset))

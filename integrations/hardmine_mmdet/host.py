"""Where mmengine keeps what the hook needs: samplers, wrappers, the loop's iterator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mmengine
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop
from mmengine.utils import digit_version

from hardmine.errors import InputError
from hardmine_mmdet.labels import wrappers
from hardmine_mmdet.sampler import HardMiningSampler

_ASKS_AGAIN = digit_version(mmengine.__version__) >= digit_version("0.10.3")


def find_sampler(loop: Any) -> HardMiningSampler:
    """The sampler of a training loop, also where its batches group images by aspect ratio.

    Raises:
        InputError: If it draws with another sampler, or with one made for the other kind of loop.
    """
    loader = loop.dataloader
    inside = getattr(loader.batch_sampler, "sampler", None)
    for sampler in (loader.sampler, inside):
        if isinstance(sampler, HardMiningSampler):
            _check_form(loop, sampler)
            return sampler
    raise InputError(
        f"the training loader draws with {type(inside or loader.sampler).__name__}; put "
        "sampler=dict(type='HardMiningSampler') into train_dataloader (with infinite=True for "
        "iteration-based training)"
    )


def _check_form(loop: Any, sampler: HardMiningSampler) -> None:
    if isinstance(loop, IterBasedTrainLoop) and not sampler.infinite:
        raise InputError(
            "iteration-based training draws without end; put infinite=True beside "
            "type='HardMiningSampler' in train_dataloader"
        )
    if isinstance(loop, EpochBasedTrainLoop) and sampler.infinite:
        raise InputError(
            "an epoch drawn by HardMiningSampler with infinite=True never ends; leave it out of "
            "train_dataloader, or train with IterBasedTrainLoop"
        )


def is_iteration_based(loop: Any) -> bool:
    """Whether the loop counts iterations and never ends a pass."""
    return isinstance(loop, IterBasedTrainLoop)


def restart(loop: Any, *, skip: int) -> None:
    """Start the loader of an iteration-based loop again, with what the sampler now knows.

    Since mmengine 0.10.3 a resumed loop asks its loader for all batches that were trained on
    already and throws them away. The sampler knows where it stopped, so the loop gets nothing for
    these, at no cost.
    """
    start = type(loop.dataloader_iterator)
    asks = _ASKS_AGAIN and not hasattr(start, "skip_iter")
    loop.dataloader_iterator = _Skipping(start(loop.dataloader), skip if asks else 0)


class _Skipping:
    """An iterator that answers None for the first batches, without drawing them."""

    def __init__(self, batches: Iterator[Any], skip: int) -> None:
        self._batches = batches
        self._skip = skip

    def __iter__(self) -> Iterator[Any]:
        return self

    def skip_iter(self, num_iters: int) -> None:
        """Do nothing: so the loop of onedl-mmengine asks to skip, if it does."""

    def __next__(self) -> Any:
        if self._skip > 0:
            self._skip -= 1
            return None
        return next(self._batches)


def note_wrappers(dataset: Any, sampler: HardMiningSampler) -> list[str]:
    """What people should know about how their data set and mining go together."""
    notes = []
    for each in wrappers(dataset):
        if hasattr(each, "repeat_indices"):
            notes.append(
                "ClassBalancedDataset repeats images of rare classes already; mining multiplies "
                "that. To let mining do all of it, take the data set out of the wrapper"
            )
    return notes

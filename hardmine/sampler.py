"""HardMiningSampler: a torch sampler that draws by a weight vector."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sized
from dataclasses import dataclass, field
from operator import length_hint
from typing import Any

import torch
import torch.distributed
from torch.utils.data import Sampler

from hardmine.draws import epoch_stream
from hardmine.errors import InputError, require_keys

_CHUNK = 1 << 14  # images turned into Python integers at a time
_KEPT = 16  # passes remembered: a loader rarely draws ahead of training by more
_MAX_COUNT = 2**31 - 1  # images or draws; the exact integers of draws.py rely on it


class HardMiningSampler(Sampler[int]):
    """Draws images by weight: same stream on every rank, sharded by stride, exactly resumable.

    The stream of an epoch is a function of (seed, epoch, weights) alone. With weights w and an
    epoch of L draws, image i comes floor(L w_i / Σw) or ceil(L w_i / Σw) times; which of the two
    changes from epoch to epoch so that no image starves. Rank r of W gets
    ``islice(stream, r, None, W)``; where W does not divide L the stream is continued from its own
    start, as torch's DistributedSampler does, so all ranks get ceil(L / W) images. Equal weights
    give each image once, in the very order of DistributedSampler with the same seed and epoch.

    An epoch that was drawn to its end is followed by the next; ``set_epoch`` overrides that. The
    infinite form draws epoch after epoch in one iterator.

    Args:
        dataset: The data set to draw from, or the number of its images.
        epoch_length: L, draws an epoch over all ranks; the number of images if None. It stays
            the same whatever the weights, since schedules depend on it.
        seed: The same on every rank.
        shuffle: Whether to shuffle the draws; if not, they come in the data set's order.
        rank: This process; with ``world_size`` None both come from torch.distributed, if it is
            initialised when they are needed, else there is one process.
        world_size: W.
        infinite: For loops that count iterations: never stop, new weights at the next pass.

    >>> sampler = HardMiningSampler(4, shuffle=False)
    >>> list(sampler)
    [0, 1, 2, 3]
    >>> sampler.set_weights([1, 2, 0, 1])
    >>> list(sampler)
    [0, 1, 1, 3]
    """

    def __init__(
        self,
        dataset: int | Sized,
        *,
        epoch_length: int | None = None,
        seed: int = 0,
        shuffle: bool = True,
        rank: int | None = None,
        world_size: int | None = None,
        infinite: bool = False,
    ) -> None:
        # Batch samplers that group by aspect ratio look their images up here.
        self.dataset = dataset if isinstance(dataset, Sized) else None
        self.num_images = len(dataset) if isinstance(dataset, Sized) else int(dataset)
        self.epoch_length = self.num_images if epoch_length is None else epoch_length
        self.seed = seed
        self.shuffle = shuffle
        self.infinite = infinite
        for name, count in (("num_images", self.num_images), ("epoch_length", self.epoch_length)):
            if not 0 < count <= _MAX_COUNT:
                raise InputError(f"{name} must be in 1 to {_MAX_COUNT}, got {count}")
        if (rank is None) != (world_size is None):
            raise InputError(
                f"give rank and world_size together or neither, got {rank} and {world_size}"
            )
        if rank is not None and world_size is not None and not 0 <= rank < world_size:
            raise InputError(f"rank must be in 0 to world_size - 1 = {world_size - 1}, got {rank}")
        self._place = None if rank is None or world_size is None else (rank, world_size)
        self._weights: torch.Tensor | None = None
        self._epoch = 0
        self._passes: tuple[_Pass, ...] = ()  # of the newest iterator, the one being drawn last
        self._begun: list[torch.Tensor | None] = []  # resumed: weights of passes begun before
        self._resumed: _Pass | None = None

    @property
    def rank(self) -> int:
        """Which of ``world_size`` shards this process draws."""
        return self._rank_and_world_size()[0]

    @property
    def world_size(self) -> int:
        """How many processes share the stream."""
        return self._rank_and_world_size()[1]

    @property
    def epoch(self) -> int:
        """The epoch that the next iterator draws, from 0."""
        return self._epoch

    @property
    def passes(self) -> float:
        """Draws of the mean image so far."""
        current, position = self._where(None)
        return (current.epoch * self.epoch_length + position) / self.num_images

    @property
    def weights(self) -> Any:
        """(N,) float64 NumPy array, read-only: the weights last set; ones before that."""
        chosen = self._weights
        if chosen is None:
            chosen = torch.ones(self.num_images, dtype=torch.float64)
        array = chosen.numpy()
        array.flags.writeable = False
        return array

    def set_weights(self, weights: Any) -> None:
        """Draw by new weights from the next epoch on; a running one keeps its own.

        Args:
            weights: (N,) array, tensor or sequence, copied. Relative: finite, not negative, not
                all zero. Zero is never drawn; so is less than about 1e-11 of the largest.

        Raises:
            InputError: If they cannot be used; the old weights stay.
        """
        self._weights = _checked(weights, self.num_images)

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iterator draws; a running one is not changed."""
        self._epoch = epoch
        if not self.infinite and self._passes and self._passes[-1].epoch != epoch:
            self._passes = ()

    def __len__(self) -> int:
        """Images an epoch for this rank; of one pass in the infinite form."""
        return -(-self.epoch_length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        # Nothing happens before the first image is requested: loaders make iterators they drop.
        current = self._begin()
        while True:
            shard = self._shard(current)
            for start in range(0, len(shard), _CHUNK):
                chunk = shard[start : start + _CHUNK].tolist()
                current.ahead = iter(chunk)
                current.position += len(chunk) * self.world_size
                yield from current.ahead
            latest = bool(self._passes) and self._passes[-1] is current
            if latest and self._epoch == current.epoch:
                self._epoch += 1
            if not self.infinite:
                return
            drawn = current.drawn_before + len(shard)
            weights = self._begun.pop(0) if self._begun else self._weights
            current = _Pass(current.epoch + 1, weights, drawn_before=drawn)
            self._passes = (*self._passes[1 - _KEPT :], current)

    def state_dict(self, *, used: int | None = None) -> dict[str, Any]:
        """All that is needed to resume with the very next image, at any number of ranks.

        torchdata's StatefulDataLoader calls this at the right moments. A plain DataLoader with
        workers draws ahead of training: tell it how far training is.

        Args:
            used: Images that training on this rank took from the running iterator since it
                began or resumed; all that were drawn if None.
        """
        current, position = self._where(used)
        if position >= self.epoch_length and used is not None:
            current, position = _Pass(current.epoch + 1, self._weights), 0
        # What has been drawn ahead of training must be drawn again as it was.
        begun = [each.weights for each in self._passes if each.epoch > current.epoch]
        known = (self._resumed, *self._passes)
        # Tensors are never written in place, so the state may hold them as they are.
        return {
            "seed": self.seed,
            "num_images": self.num_images,
            "epoch_length": self.epoch_length,
            "epoch": current.epoch,
            "position": position,
            "started": any(current is one for one in known),
            "weights": current.weights,
            "begun_weights": begun + self._begun,
            "next_weights": self._weights,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume where a state was taken; iterators that are already running are not changed.

        The number of ranks may have changed, the seed and the lengths may not.
        """
        require_keys(state, self.state_dict(), "sampler")
        for name in ("seed", "num_images", "epoch_length"):
            if state[name] != getattr(self, name):
                raise InputError(
                    f"the saved sampler has {name} {state[name]}, this one {getattr(self, name)}; "
                    "make the sampler as it was when the state was saved"
                )
        self._weights, drawn_by, *begun = (
            None if saved is None else _checked(saved, self.num_images)
            for saved in (state["next_weights"], state["weights"], *state["begun_weights"])
        )
        self._begun = begun
        self._epoch = state["epoch"]
        self._passes = ()
        # A pass that had not begun takes the weights that are there when it does.
        self._resumed = None
        if state["started"]:
            self._resumed = _Pass(self._epoch, drawn_by, start=state["position"])

    def _rank_and_world_size(self) -> tuple[int, int]:
        if self._place is not None:
            return self._place
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        return 0, 1

    def _begin(self) -> _Pass:
        resumed, self._resumed = self._resumed, None
        if resumed is None or resumed.epoch != self._epoch:
            resumed = _Pass(self._epoch, self._weights)
            self._begun = []
        self._passes = (resumed,)
        return resumed

    def _where(self, used: int | None) -> tuple[_Pass, int]:
        if self._resumed is not None and self._resumed.epoch == self._epoch:
            return self._resumed, self._resumed.start
        if not self._passes:
            return _Pass(self._epoch, self._weights), 0
        current = self._passes[-1]
        if used is None and current.epoch != self._epoch and not self.infinite:
            return _Pass(self._epoch, self._weights), 0  # drawn to its end
        if used is None:
            return current, current.position - length_hint(current.ahead) * self.world_size
        for current in reversed(self._passes):
            if used >= current.drawn_before:
                return current, current.start + (used - current.drawn_before) * self.world_size
        raise InputError(f"used={used} lies {_KEPT} passes behind what has been drawn")

    def _shard(self, current: _Pass) -> torch.Tensor:
        rank, world_size = self._rank_and_world_size()
        stream = epoch_stream(
            current.weights,
            self.num_images,
            self.epoch_length,
            seed=self.seed,
            epoch=current.epoch,
            shuffle=self.shuffle,
        )
        missing = -(self.epoch_length - current.start) % world_size
        if missing:
            repeats = math.ceil(missing / self.epoch_length)
            stream = torch.cat([stream, stream.repeat(repeats)[:missing]])
        return stream[current.start + rank :: world_size]


@dataclass
class _Pass:
    """One epoch as it is drawn: what fixes its stream, and how far the stream has been drawn."""

    epoch: int
    weights: torch.Tensor | None
    start: int = 0  # where in the stream it was begun or resumed
    drawn_before: int = 0  # by this rank and this iterator, in earlier passes
    position: int = field(init=False)  # drawn of the stream by all ranks, ``ahead`` included
    ahead: Iterator[int] = field(default_factory=lambda: iter(()), init=False)

    def __post_init__(self) -> None:
        self.position = self.start


def _checked(weights: Any, num_images: int) -> torch.Tensor:
    """Copy weights into a float64 tensor, or say what is wrong with them."""
    copied = torch.tensor(weights) if not isinstance(weights, torch.Tensor) else weights.clone()
    copied = copied.detach().to("cpu", torch.float64)
    if copied.shape != (num_images,):
        got = len(copied) if copied.dim() == 1 else f"shape {tuple(copied.shape)}"
        raise InputError(
            f"weights must have one value per image (expected {num_images}, got {got}); "
            "was the index built on another split?"
        )
    low, high = (float(end) for end in torch.aminmax(copied))
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = (~torch.isfinite(copied)).nonzero().squeeze(1)
        raise InputError(
            f"weights must be finite, got {float(copied[bad[0]])} for image {int(bad[0])} "
            f"and {len(bad) - 1} more"
        )
    if low < 0:
        row = int(copied.argmin())
        raise InputError(f"weights must not be negative, got {low} for image {row}; 0 means never")
    if high == 0:
        raise InputError("weights must not all be zero; equal weights draw every image alike")
    return copied

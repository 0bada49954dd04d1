"""HardMiningSampler: a torch sampler that draws by a weight vector."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Sized
from typing import Any

import torch
import torch.utils.data
from torch.utils.data import Sampler

from hardmine.distributed import rank_and_world_size
from hardmine.draws import epoch_stream
from hardmine.draws.callers import dropping_batch_size, sharding_class
from hardmine.draws.checks import checked_weights, whole_number
from hardmine.draws.iterations import Iteration, Pass
from hardmine.errors import InputError, require_keys

logger = logging.getLogger(__name__)

_CHUNK = 1 << 14  # images turned into Python integers at a time
_KEPT = 16  # passes remembered: a loader rarely draws ahead of training by more
_RESTARTS = 2  # a loader may be looked into once before training
_SET_IN_VAIN = 3  # a resumed run may set weights twice before it draws
_MAX_COUNT = 2**31 - 1  # images or draws; the exact integers of draws.py rely on it


class HardMiningSampler(Sampler[int]):
    """Draws images by weight: same stream on every rank, sharded by stride, exactly resumable.

    The stream of an epoch is a function of (seed, epoch, weights) alone. With weights w and an
    epoch of L draws, image i comes floor(L w_i / Σw) or ceil(L w_i / Σw) times; which of the two
    changes from epoch to epoch so that no image starves. Rank r of W gets
    ``islice(stream, r, None, W)``; where W does not divide L the stream is continued from its own
    start, as torch's DistributedSampler does, so all ranks get ceil(L / W) images. Equal weights
    give each image once, in the very order of DistributedSampler with the same seed and epoch.

    Repeats of an image are spread over the epoch: with k draws it comes about every k-th of it.

    An epoch whose last image was handed out is followed by the next; ``set_epoch`` overrides that.
    Of images that a batch sampler with ``drop_last`` drops, none counts. An epoch that is left
    earlier is drawn again. The infinite form draws epoch after epoch in one iterator.

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
        sharded_by: Who gives each rank its share. ``"sampler"``: this class, as with torch's
            DistributedSampler. ``"host"``: the trainer shards what any sampler draws (Accelerate
            and the HF Trainer always, Lightning unless ``use_distributed_sampler=False``), so every
            rank draws the whole stream here.

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
        sharded_by: str = "sampler",
    ) -> None:
        # Batch samplers that group by aspect ratio look their images up here.
        self.dataset = dataset if isinstance(dataset, Sized) else None
        images = len(dataset) if isinstance(dataset, Sized) else dataset
        self.num_images = whole_number("num_images", images)
        length = self.num_images if epoch_length is None else epoch_length
        self.epoch_length = whole_number("epoch_length", length)
        self.seed = whole_number("seed", seed)
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
        if sharded_by not in ("sampler", "host"):
            raise InputError(f'sharded_by must be "sampler" or "host", got {sharded_by!r}')
        if sharded_by == "host" and rank is not None:
            raise InputError('give rank and world_size, or sharded_by="host", not both')
        self.sharded_by = sharded_by
        self._place = None if rank is None or world_size is None else (rank, world_size)
        if sharded_by == "host":
            self._place = (0, 1)
        self._weights: torch.Tensor | None = None
        self._epoch = 0
        self._iterations: list[Iteration] = []  # the running or last one, and one begun since
        self._begun: list[torch.Tensor | None] = []  # resumed: weights of passes begun before
        self._resumed: Pass | None = None
        self._restarts = 0  # how often the present epoch was left and begun again
        self._unsharded = False  # whether that was said
        self._drawn = False  # whether anything was, in this process
        self._times_set = 0

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

        An infinite sampler takes them at its next pass. A loader that runs ahead (an infinite one
        with workers) has drawn some of that already: make its iterator anew to use them at once.

        Args:
            weights: (N,) array, tensor or sequence, copied. Relative: finite, not negative, not
                all zero. Zero is never drawn; so is less than about 1e-11 of the largest.

        Raises:
            InputError: If they cannot be used; the old weights stay.
        """
        self._weights = checked_weights(weights, self.num_images)
        self._times_set += 1
        if self._times_set == _SET_IN_VAIN and not self._drawn and rank_and_world_size()[0] == 0:
            logger.warning(
                "weights were set %d times and nothing was drawn by them: give this very sampler "
                "to the training DataLoader (sampler=sampler); some trainers replace or copy it",
                self._times_set,
            )

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iterator draws; a running one is not changed."""
        self._epoch = whole_number("epoch", epoch)
        self._restarts = 0
        current = self._current()
        if self.infinite or current is None:
            return
        if current.exhausted or current.passes[-1].epoch != self._epoch:
            self._iterations = []

    def __len__(self) -> int:
        """Images an epoch for this rank; of one pass in the infinite form."""
        return -(-self.epoch_length // self.world_size)

    def __iter__(self) -> Iterator[int]:
        # Nothing happens before the first image is requested: loaders make iterators they drop.
        self._check_caller()
        self._drawn = True
        iteration = self._begin(1 if self.infinite else dropping_batch_size())
        try:
            while True:
                yield from self._draw(iteration)
                if not self.infinite:
                    return
                epoch = iteration.passes[-1].epoch + 1
                weights = self._begun.pop(0) if self._begun else self._weights
                following = Pass(epoch, weights, drawn_before=iteration.handed_out)
                iteration.passes = (*iteration.passes[1 - _KEPT :], following)
        finally:
            # Also where a loader drops the iterator: what lay ahead was never handed out.
            iteration.close()
            end = self.epoch_length - iteration.dropped * iteration.world_size
            iteration.exhausted = not self.infinite and iteration.passes[-1].position >= end

    def _draw(self, iteration: Iteration) -> Iterator[int]:
        """Hand out this rank's share of a pass."""
        current = iteration.passes[-1]
        shard = self._shard(current)
        count = len(shard)
        end = count - iteration.dropped
        start = 0
        for stop in sorted({*range(_CHUNK, count, _CHUNK), end, count} - {0}):
            *chunk, last = shard[start:stop].tolist()
            start = stop
            iteration.take(chunk)
            yield from iteration.ahead
            iteration.kept_back = 0
            if stop == end:
                # Before the last image: a loop that stops there must not draw this epoch again.
                self._end_epoch(current)
            yield last
        if not count:
            self._end_epoch(current)

    def _end_epoch(self, current: Pass) -> None:
        if self._epoch == current.epoch:
            self._epoch += 1

    def state_dict(self, *, used: int | None = None) -> dict[str, Any]:
        """All that is needed to resume with the very next image, at any number of ranks.

        torchdata's StatefulDataLoader calls this at the right moments. A plain DataLoader with
        workers draws ahead of training: tell it how far training is.

        Args:
            used: Images that training on this rank took from the running iterator since it
                began or resumed; all that were drawn if None.
        """
        iteration = self._current()
        current, position = self._where(used)
        dropped = 0 if iteration is None else iteration.dropped * iteration.world_size
        if used is not None and position >= self.epoch_length - dropped:
            current, position = Pass(current.epoch + 1, self._weights), 0
        # What has been drawn ahead of training must be drawn again as it was.
        passes = () if iteration is None else iteration.passes
        begun = [each.weights for each in passes if each.epoch > current.epoch]
        known = (self._resumed, *passes)
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
            None if saved is None else checked_weights(saved, self.num_images)
            for saved in (state["next_weights"], state["weights"], *state["begun_weights"])
        )
        self._begun = begun
        self._epoch = state["epoch"]
        self._iterations = []
        # A pass that had not begun takes the weights that are there when it does.
        self._resumed = None
        if state["started"]:
            self._resumed = Pass(self._epoch, drawn_by, start=state["position"])

    def _rank_and_world_size(self) -> tuple[int, int]:
        return rank_and_world_size() if self._place is None else self._place

    def _check_caller(self) -> None:
        """Say it where something outside makes the draws wrong."""
        if torch.utils.data.get_worker_info() is not None:
            warnings.warn(
                "HardMiningSampler is iterated inside a DataLoader worker (detectron2's "
                "ToIterableDataset does so), where new weights never arrive; make the loader's "
                "iterator anew after each round, or draw in the main process",
                RuntimeWarning,
                stacklevel=3,
            )
        _, world_size = rank_and_world_size()
        owner = sharding_class() if world_size > 1 or self.world_size > 1 else ""
        if self.world_size > 1 and owner:
            raise InputError(
                f"HardMiningSampler gives each of {self.world_size} ranks its share, and "
                f"{owner} would shard that again, so that most images are never seen; make it "
                'with sharded_by="host" (or, in Lightning, set use_distributed_sampler=False)'
            )
        if self.sharded_by == "host" and world_size > 1 and not owner and not self._unsharded:
            self._unsharded = True
            warnings.warn(
                f'HardMiningSampler has sharded_by="host", and nothing known shards it: each of '
                f"{world_size} ranks may draw all images, the same ones at the same time; leave "
                "sharded_by out unless the trainer shards",
                RuntimeWarning,
                stacklevel=3,
            )

    def _current(self) -> Iteration | None:
        """The iterator that training draws from: the newest, unless it was a mere peek.

        A peek is dropped half way, and has handed out less than the iterator before it.
        """
        if not self._iterations:
            return None
        newest = self._iterations[-1]
        if newest.exhausted or not newest.closed:
            return newest
        return max(self._iterations, key=lambda each: each.handed_out)

    def _begin(self, batch_size: int) -> Iteration:
        resumed, self._resumed = self._resumed, None
        if resumed is None or resumed.epoch != self._epoch:
            resumed = Pass(self._epoch, self._weights)
            self._begun = []
        before, iteration = self._current(), Iteration((resumed,), self.world_size)
        images = -(-(self.epoch_length - resumed.start) // self.world_size)
        iteration.dropped = images % batch_size if images >= batch_size else 0
        self._count_restart(before)
        self._iterations = [iteration] if before is None else [before, iteration]
        return iteration

    def _count_restart(self, before: Iteration | None) -> None:
        if before is None or before.passes[-1].epoch != self._epoch:
            self._restarts = 0
        elif before.closed and before.handed_out and not self.infinite:
            self._restarts += 1
            if self._restarts == _RESTARTS:
                warnings.warn(
                    f"epoch {self._epoch} of HardMiningSampler begins again with the same images, "
                    f"as it was left after {before.handed_out} of them; call set_epoch before each "
                    "pass, or draw from one iterator with infinite=True",
                    RuntimeWarning,
                    stacklevel=4,
                )

    def _where(self, used: int | None) -> tuple[Pass, int]:
        if self._resumed is not None and self._resumed.epoch == self._epoch:
            return self._resumed, self._resumed.start
        iteration = self._current()
        if iteration is None:
            return Pass(self._epoch, self._weights), 0
        current = iteration.passes[-1]
        if used is None and iteration.exhausted:
            return Pass(self._epoch, self._weights), 0
        if used is None:
            return current, current.position - iteration.num_ahead * iteration.world_size
        for current in reversed(iteration.passes):
            if used >= current.drawn_before:
                return current, current.start + (used - current.drawn_before) * iteration.world_size
        raise InputError(f"used={used} lies {_KEPT} passes behind what has been drawn")

    def _shard(self, current: Pass) -> torch.Tensor:
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

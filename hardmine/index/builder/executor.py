"""Who makes the shards of a build: this process, the ranks of ``torch.distributed``, or Ray."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hardmine.distributed import RankGroup
from hardmine.encoders.base import Encoder
from hardmine.errors import InputError, MissingExtra
from hardmine.index.builder.build_folder import BuildFolder
from hardmine.index.builder.pipeline import Progress, ShardBuilder
from hardmine.index.builder.plan import FinishedShard, Plan
from hardmine.index.builder.proposals import Proposals
from hardmine.index.builder.worker_folder import WorkerFolder, describe_machine, new_folder
from hardmine.records import ImageSet

log = logging.getLogger(__name__)

Report = Callable[[Progress], None]
MAX_THREADS = 16  # that decode images


@dataclass(frozen=True)
class Job:
    """Shards to make, and what they are made of.

    Attributes:
        plan: Settings, and which images go into which shard.
        numbers: Numbers of the shards to make.
        images: The M images of the plan, in its order.
        encoder: Embeds them.
        build_folder: Where finished shards are noted.
        batch_size: Images that the encoder takes at once.
        workers: Threads that decode images; one per CPU core, at most 16, if None.
        proposals: Boxes by image id, for the clustering "boxes".
        already_done: Images of the data set that need no shard of this plan.
    """

    plan: Plan
    numbers: list[int]
    images: ImageSet
    encoder: Encoder
    build_folder: BuildFolder
    batch_size: int
    workers: int | None
    proposals: Proposals | None
    already_done: int = 0

    @property
    def done(self) -> int:
        """Images that are finished before the job begins."""
        left = sum(len(self.plan.rows(number)) for number in self.numbers)
        return self.already_done + self.plan.count - left


class Executor(Protocol):
    """Makes all shards of a job; each is noted in the build folder as soon as it is finished."""

    def make(self, job: Job, report: Report | None) -> None:
        """Return when all are finished; report progress after every batch, or every second."""
        ...


class Ranks:
    """Each rank of ``torch.distributed`` makes its share; alone, this process makes all."""

    def __init__(self, ranks: RankGroup) -> None:
        self._ranks = ranks

    def make(self, job: Job, report: Report | None) -> None:
        """Make the shards."""
        ranks = self._ranks
        ranks.on_every_rank(
            lambda: _make_here(
                job,
                job.numbers[ranks.rank :: ranks.size],
                report,
                already_done=job.done if ranks.size == 1 else 0,
            )
        )


def executor_for(
    name: str | None, ranks: RankGroup, images: ImageSet, encoder: Encoder
) -> Executor:
    """The executor with a name, after checking that it can take the images and the encoder.

    Args:
        name: None, ``"ray"``, or ``"ray:ADDRESS"``.
        ranks: The ranks that call this.
        images: Images of the build.
        encoder: Embeds them.
    """
    if name is None:
        return Ranks(ranks)
    kind, _, address = name.partition(":")
    if kind != "ray":
        raise InputError(f'executor must be None, "ray" or "ray:ADDRESS", got {name!r}')
    if ranks.size > 1:
        raise InputError(
            "a build on Ray is started by one process, got "
            f"{ranks.size} ranks of torch.distributed; use one of the two"
        )
    if importlib.util.find_spec("ray") is None:
        raise MissingExtra("ray", "a build on Ray")
    from hardmine.index.builder.on_ray import OnRay

    return OnRay(address or None, images, encoder)


def make_shards(executor: Executor, job: Job, report: Report | None) -> None:
    """Make all shards of a job."""
    if job.done:
        log.info(
            "continuing: %d of %d images are done", job.done, job.already_done + job.plan.count
        )
    executor.make(job, report)


def make_shard(
    plan: Plan,
    number: int,
    images: ImageSet,
    encoder: Encoder,
    folder: Path,
    *,
    batch_size: int,
    workers: int | None = None,
    proposals: Proposals | None = None,
    report: Report | None = None,
) -> FinishedShard:
    """Make one shard of a plan in a folder of the caller's own; equal arguments, equal files.

    Args:
        plan: Settings, and which images go into which shard.
        number: Number of the shard.
        images: The images of the plan, in its order.
        encoder: Embeds them.
        folder: Gets the two files, under their names in an index; has a subfolder ``shards``.
        batch_size: Images that the encoder takes at once.
        workers: Threads that decode images; one per CPU core, at most 16, if None.
        proposals: Boxes by image id, for the clustering "boxes".
        report: Called after every batch.
    """
    made: list[FinishedShard] = []
    shard_builder = ShardBuilder(
        plan,
        images,
        encoder,
        WorkerFolder(folder, made.append, describe_machine(encoder)),
        batch_size=batch_size,
        workers=workers or default_threads(),
        proposals=proposals,
    )
    shard_builder.make([number], report)
    (shard,) = made
    return shard


def default_threads() -> int:
    """Threads that decode images: one per CPU core, at most 16."""
    return min(os.cpu_count() or 1, MAX_THREADS)


def _make_here(job: Job, numbers: list[int], report: Report | None, *, already_done: int) -> None:
    """Make shards one after the other, decoding the next while the last are being encoded."""
    if not numbers:
        return
    with new_folder(job.build_folder.path) as folder:
        shard_builder = ShardBuilder(
            job.plan,
            job.images,
            job.encoder,
            WorkerFolder(
                folder,
                lambda finished: job.build_folder.accept(finished, folder),
                describe_machine(job.encoder),
            ),
            batch_size=job.batch_size,
            workers=job.workers or default_threads(),
            proposals=job.proposals,
        )
        shard_builder.make(numbers, report, already_done=already_done)

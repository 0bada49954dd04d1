"""Builds on a Ray cluster: this process hands out the shards and moves them into the index.

A worker gets the settings once, and with each shard its number and the paths of its images. A shard
whose worker is lost goes to another worker: with Ray's own ``max_task_retries`` it would wait until
the same worker is made again, which on a lost node is never.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hardmine._version import __version__
from hardmine.encoders.base import Encoder
from hardmine.errors import HardmineError, InputError
from hardmine.index.builder.executor import Job, Report
from hardmine.index.builder.pipeline import Progress
from hardmine.index.builder.plan import FinishedShard
from hardmine.index.builder.ray_cluster import Place, connected, places_of
from hardmine.index.builder.ray_worker import Made, Setup, Worker
from hardmine.index.storage.manifest import layout_name, vectors_name
from hardmine.records import ImageSet

log = logging.getLogger(__name__)

_GROUP = "progress"  # calls that are answered while a shard is made
_TICK = 1.0  # seconds between two reports
_NODES_EVERY = 5.0  # seconds between two looks at the nodes
_WAIT = 60.0  # seconds after which a worker that has not begun is mentioned
_MAX_LOST = 3  # workers lost with the same shard, or lost by a node before one was ready
_MAX_READER = 1 << 20  # bytes of what reads the images


@dataclass
class _Hired:
    """A worker, the call that it is answering, and how far it is."""

    place: Place
    actor: Any
    call: Any
    since: float
    number: int | None = None
    ready: bool = False
    asked: Any = None
    progress: tuple[int, int] = (0, 0)
    mentioned: bool = False


class OnRay:
    """An executor that makes the shards on a Ray cluster.

    Args:
        address: Of the cluster; None is the one running here, or else one of this machine.
        images: Images of the build.
        encoder: Embeds them; each worker loads it by its ``spec``.
    """

    def __init__(self, address: str | None, images: ImageSet, encoder: Encoder) -> None:
        self._address = address
        spec: dict[str, Any] | None = getattr(encoder, "spec", None)
        if spec is None:
            raise InputError(
                "a build on Ray loads the encoder on every node by its name, but this encoder has "
                "none; use one from load_encoder, or build with torchrun"
            )
        self._spec = spec
        self._reader = _packed_reader(images)

    def make(self, job: Job, report: Report | None) -> None:
        """Make all shards; when interrupted, those that are finished are kept."""
        if not job.numbers:
            return
        with connected(self._address):
            head = _Head(job, self._setup(job), self._reader)
            try:
                head.run(report)
            finally:
                head.dismiss()

    def _setup(self, job: Job) -> bytes:
        sample, sha256 = _readable_image(job.images)
        setup = Setup(
            folder=str(job.build_folder.folder.absolute()),
            plan=job.plan,
            root=str(job.images.root.absolute()),
            encoder=self._spec,
            batch_size=job.batch_size,
            threads=job.workers,
            sample=sample,
            sha256=sha256,
        )
        return msgspec.json.encode(setup)


class _Head:
    """Hands out shards until all are finished."""

    def __init__(self, job: Job, setup: bytes, reader: bytes | None) -> None:
        self._job = job
        self._setup = setup
        self._reader = reader
        self._waiting = deque(job.numbers)
        self._left = set(job.numbers)
        self._hired: list[_Hired] = []
        self._lost: Counter[int] = Counter()  # workers, by the number of their shard
        self._failures: Counter[str] = Counter()  # of nodes on which no worker has been ready
        self._proven: set[str] = set()  # nodes on which a worker has been ready
        self._refused: set[str] = set()
        self._first: set[str] | None = None  # nodes of the beginning
        self._next_look = 0.0
        self._fresh = self._skipped = 0

    def run(self, report: Report | None) -> None:
        started = time.perf_counter()
        while self._left:
            self._hire()
            self._hand_out()
            calls = {each.call: each for each in self._hired if each.call is not None}
            if not calls:
                time.sleep(_TICK)
                continue
            answered, _ = ray.wait(list(calls), timeout=_TICK)
            for call in answered:
                self._receive(calls[call])
            if report is not None:
                self._ask()
                report(self._progress(time.perf_counter() - started))

    def dismiss(self) -> None:
        """End all workers."""
        for each in self._hired:
            ray.kill(each.actor)

    def _hire(self) -> None:
        """Start workers on nodes that have room for more, also on those that have just joined."""
        if time.monotonic() < self._next_look:
            return
        self._next_look = time.monotonic() + _NODES_EVERY
        places = places_of(ray.nodes())
        if self._first is None:
            self._first = {place.node_id for place in places}
            if not places:
                raise HardmineError(
                    "no node of the Ray cluster has a CPU or GPU; add one with ray start"
                )
        for place in places:
            working = sum(each.place.node_id == place.node_id for each in self._hired)
            if place.node_id not in self._refused:
                self._hired += [self._start(place) for _ in range(place.workers - working)]
        for each in self._hired:
            if not each.ready and not each.mentioned and time.monotonic() > each.since + _WAIT:
                each.mentioned = True
                log.warning(
                    "node %s: a worker with %d CPUs and %d GPUs has not begun after %.0f s; they "
                    "may be in use, or its encoder is being downloaded",
                    *(each.place.name, each.place.cpus, each.place.gpus, _WAIT),
                )

    def _start(self, place: Place) -> _Hired:
        actor_class = ray.remote(
            num_cpus=place.cpus,
            num_gpus=place.gpus,
            concurrency_groups={_GROUP: 1},
            scheduling_strategy=NodeAffinitySchedulingStrategy(place.node_id, soft=False),
        )(Worker)
        actor = actor_class.remote()
        call = actor.prepare.remote(__version__, self._setup, self._reader, place.gpus)
        return _Hired(place, actor, call, since=time.monotonic())

    def _hand_out(self) -> None:
        for each in self._hired:
            if each.ready and each.call is None and self._waiting:
                each.number, each.progress = self._waiting.popleft(), (0, 0)
                each.call = each.actor.make.remote(each.number, *self._contents(each.number))

    def _contents(self, number: int) -> tuple[list[str], list[Any] | None]:
        """Paths of a shard's images, and their boxes for the clustering "boxes"."""
        rows, images, proposals = self._job.plan.rows(number), self._job.images, self._job.proposals
        paths = list(images.paths[rows.start : rows.stop])
        if proposals is None:
            return paths, None
        ids = images.ids[rows.start : rows.stop].tolist()
        return paths, [np.array(proposals.get(each, ()), np.float32) for each in ids]

    def _receive(self, worker: _Hired) -> None:
        name = worker.place.name
        try:
            answer = ray.get(worker.call)
        except ray.exceptions.RayTaskError as error:
            raise HardmineError(f"node {name}: {_last_line(error)}") from error
        except ray.exceptions.RayError as error:
            self._lose(worker, _last_line(error))
            return
        worker.call = None
        if worker.number is None:
            if answer:
                self._refuse(worker, answer)
            else:
                worker.ready = True
                self._proven.add(worker.place.node_id)
            return
        made = msgspec.json.decode(answer, type=Made)
        if made.shard is None:
            raise HardmineError(f"node {name}: {made.problem}; finished shards are kept")
        self._accept(worker.number, made.shard, made.folder)
        worker.number = None

    def _accept(self, number: int, shard: FinishedShard, folder: str) -> None:
        own = (number, vectors_name(number), layout_name(number))
        assert (shard.shard.number, shard.shard.vectors.name, shard.shard.layout.name) == own
        assert "/" not in folder
        self._job.build_folder.accept(shard, self._job.build_folder.path / folder)
        self._left.discard(number)
        self._fresh += len(shard.facts)
        self._skipped += sum(bool(fact.problem) for fact in shard.facts)

    def _lose(self, worker: _Hired, reason: str) -> None:
        """Give the shard of a worker that has ended, or cannot be reached, to another one."""
        self._hired.remove(worker)
        ray.kill(worker.actor)  # one that cannot be reached may be alive
        node_id, name, number = worker.place.node_id, worker.place.name, worker.number
        if number is None:
            self._failures[node_id] += 1
            if node_id not in self._proven and self._failures[node_id] >= _MAX_LOST:
                self._refuse(worker, f"a worker does not start: {reason}")
            return
        self._waiting.appendleft(number)
        self._lost[number] += 1
        if self._lost[number] >= _MAX_LOST:
            raise HardmineError(
                f"shard {number} has lost {_MAX_LOST} workers, the last on node {name}: {reason}; "
                "its memory may be too small: try a smaller batch_size; finished shards are kept"
            )
        log.warning("node %s: lost a worker (%s); another makes shard %d", name, reason, number)

    def _refuse(self, worker: _Hired, problem: str) -> None:
        """Fail because of what a node lacks; one that has joined later is only left out."""
        message = f"node {worker.place.name}: {problem}"
        if self._first is None or worker.place.node_id in self._first:
            raise HardmineError(message)
        log.warning("%s; the build goes on without it", message)
        self._refused.add(worker.place.node_id)
        if worker in self._hired:
            self._hired.remove(worker)
            ray.kill(worker.actor)

    def _ask(self) -> None:
        """Ask each busy worker how far it is, without waiting for the answer."""
        for each in self._hired:
            if each.number is None:
                continue
            if each.asked is not None and ray.wait([each.asked], timeout=0)[0]:
                with suppress(ray.exceptions.RayError):  # its call has failed too
                    each.progress = ray.get(each.asked)
                each.asked = None
            if each.asked is None:
                progress = each.actor.progress.options(concurrency_group=_GROUP)
                each.asked = progress.remote()

    def _progress(self, seconds: float) -> Progress:
        job, busy = self._job, [each.progress for each in self._hired if each.number is not None]
        fresh = self._fresh + sum(done for done, _ in busy)
        skipped = self._skipped + sum(skipped for _, skipped in busy)
        total = job.already_done + job.plan.count
        return Progress(job.done + fresh, total, skipped, fresh, seconds)


def _packed_reader(images: ImageSet) -> bytes | None:
    """What reads images that are not files, packed by Ray for its own workers."""
    if images.reader is None:
        return None
    try:
        packed: bytes = ray.cloudpickle.dumps(images.reader)
    except Exception as error:
        raise InputError(
            f"what reads these images cannot be sent to other nodes ({error}); list them as files, "
            "or build with torchrun"
        ) from error
    if len(packed) > _MAX_READER:
        raise InputError(
            f"what reads these images holds {len(packed) >> 20} MiB, more than can be sent to "
            "every worker; list them as files, or build with torchrun"
        )
    return packed


def _readable_image(images: ImageSet) -> tuple[str, str]:
    """Path and hash of one of a few images that can be read here; empty if none can."""
    for row in np.unique(np.linspace(0, len(images) - 1, 16, dtype=int)).tolist():
        with suppress(InputError):
            return images.paths[row], hashlib.sha256(images.read(row)).hexdigest()
    return "", ""


def _last_line(error: Exception) -> str:
    """The line of one of Ray's long messages that names the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[-1] if lines else type(error).__name__
    return line.partition(" Some common causes include")[0]
